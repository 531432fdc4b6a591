use kernels::*;
use std::time::Instant;
fn main() {
    let isa = Isa::choose().unwrap();
    let peak = {
        let t = Instant::now();
        let n = multiply_add_in_registers(isa, 20_000_000);
        n as f64 / t.elapsed().as_secs_f64() / 1e9
    };
    println!("peak {peak:.1}");
    for (m, k, n) in [
        (3136, 2048, 64),
        (196, 64, 192),
        (196, 64, 256),
        (196, 256, 64),
        (196, 192, 576),
        (196, 192, 768),
        (196, 768, 192),
        (3136, 2048, 192),
        (49, 32, 49),
        (49, 49, 32),
    ] {
        let a: Vec<f32> = (0..m * k).map(|i| (i % 17) as f32 - 8.0).collect();
        let w: Vec<f32> = (0..n * k + 64).map(|i| (i % 13) as f32 - 6.0).collect();
        let mut p = Panels::new(isa, k, n);
        p.pack(Matrix::rows(&w, n, k, k).transposed());
        let mut c = vec![0f32; m * n];
        let reps = (3e9 / (2 * m * k * n) as f64) as usize + 1;
        let mut best = 0f64;
        for _ in 0..5 {
            let t = Instant::now();
            for _ in 0..reps {
                multiply(
                    Matrix::rows(&a, m, k, k),
                    &p,
                    Begin::Zero,
                    MatrixMut { values: &mut c, rows: m, columns: n, row_step: n },
                );
            }
            best = best.max((2 * m * k * n * reps) as f64 / t.elapsed().as_secs_f64() / 1e9);
        }
        // dW: (n x k) = dY^T (m x n) X (m x k)
        let kp = k.div_ceil(32) * 32;
        let x: Vec<f32> = (0..m * kp + 64).map(|i| (i % 7) as f32).collect();
        let dy: Vec<f32> = (0..m * n).map(|i| (i % 5) as f32).collect();
        let mut dw = vec![0f32; n * k];
        let mut best2 = 0f64;
        for _ in 0..5 {
            let t = Instant::now();
            for _ in 0..reps {
                multiply_rows(
                    isa,
                    Matrix::rows(&dy, m, n, n).transposed(),
                    Matrix::rows(&x, m, k, kp),
                    Begin::Zero,
                    MatrixMut { values: &mut dw, rows: n, columns: k, row_step: k },
                );
            }
            best2 = best2.max((2 * m * k * n * reps) as f64 / t.elapsed().as_secs_f64() / 1e9);
        }
        println!(
            "{m}x{k}x{n}: fwd {best:.1} ({:.0}%)  dW {best2:.1} ({:.0}%)",
            best / peak * 100.,
            best2 / peak * 100.
        );
    }
}
