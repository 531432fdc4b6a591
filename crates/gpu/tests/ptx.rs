//! The kernels compile for the cards that they are meant for, down to their own instructions. Needs NVIDIA's compiler, not a card.

use std::{io::ErrorKind, process::Command};

use gpu::{Constants, Program};

/// Turing (T4), which has no bfloat16; Ampere (A100) and Hopper (H100, H200).
const ARCHITECTURES: [&str; 3] = ["75", "80", "90"];

/// Names of the kernels in `ptx`.
fn kernels(ptx: &str) -> Vec<&str> {
    let entries = ptx.lines().filter_map(|line| line.strip_prefix(".visible .entry "));
    let mut names: Vec<&str> = entries.map(|line| line.trim_end_matches('(')).collect();
    names.sort_unstable();
    names
}

#[test]
fn all_kernels_compile_for_what_runs_them() {
    let models = [
        Constants { width: 64, heads: 2, tokens: 49, classes: 6, grid: 7, class_token: false, bf16: false },
        Constants { width: 192, heads: 3, tokens: 981, classes: 8, grid: 14, class_token: true, bf16: true },
        Constants { width: 64, heads: 2, tokens: 49, classes: 6, grid: 7, class_token: false, bf16: true },
        // As much shared memory as there is: in attention, and in the head.
        Constants { width: 94, heads: 1, tokens: 49, classes: 6, grid: 7, class_token: false, bf16: false },
        Constants { width: 2040, heads: 30, tokens: 49, classes: 6, grid: 7, class_token: false, bf16: false },
    ];
    assert!(models.iter().all(Constants::fits));
    assert!(
        ![(95, 1), (2080, 40)]
            .iter()
            .any(|(width, heads)| Constants { width: *width, heads: *heads, ..models[0] }.fits())
    );
    let programs: Vec<Program> = models.iter().map(Constants::program).chain([Program::pass()]).collect();
    let all = programs.iter().flat_map(|program| ARCHITECTURES.map(|of| (program, of)));
    for (program, architecture) in all.filter(|(program, architecture)| !program.bf16 || *architecture != "75") {
        let folder = tempfile::tempdir().unwrap();
        let (source, ptx) = (folder.path().join("kernels.cu"), folder.path().join("kernels.ptx"));
        std::fs::write(&source, program.source).unwrap();
        let mut command = Command::new("nvcc");
        command.args(["-ptx", &format!("-arch=compute_{architecture}")]).args(&program.options);
        let output = match command.arg(&source).arg("-o").arg(&ptx).output() {
            Ok(output) => output,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                eprintln!("skipped: there is no nvcc; crates/gpu/cuda-toolkit.sh gets one");
                return;
            }
            Err(error) => panic!("{error}"),
        };
        assert!(output.status.success(), "{architecture}: {}", String::from_utf8_lossy(&output.stderr));
        let mut assembler = Command::new("ptxas");
        assembler.arg(format!("-arch=sm_{architecture}")).arg(&ptx).arg("-o").arg(folder.path().join("kernels.cubin"));
        let output = assembler.output().unwrap();
        assert!(output.status.success(), "{architecture}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(kernels(&std::fs::read_to_string(&ptx).unwrap()), program.kernels);
    }
}
