use std::time::Instant;

use kernels::{Isa, multiply_add_in_registers};

/// Floating-point operations per second of `threads` threads that multiply and add in registers only, in units of
/// 10⁹: what no kernel can pass. The best of five measurements of some 50 ms.
pub fn peak_gflops(isa: Isa, threads: usize) -> f64 {
    const ROUNDS: usize = 10_000_000;
    let once = || {
        let begun = Instant::now();
        let operations: u64 = std::thread::scope(|scope| {
            let workers: Vec<_> =
                (0..threads).map(|_| scope.spawn(|| multiply_add_in_registers(isa, ROUNDS))).collect();
            workers.into_iter().filter_map(|worker| worker.join().ok()).sum()
        });
        operations as f64 / begun.elapsed().as_secs_f64() / 1e9
    };
    (0..5).map(|_| once()).fold(0.0, f64::max)
}
