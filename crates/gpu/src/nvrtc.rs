//! The compiler of kernels.

use std::ffi::{CStr, CString, c_char};

use cudarc::nvrtc::{
    result::{NvrtcError, compile_program, create_program, destroy_program, get_program_log},
    sys,
};

use crate::Program;

/// Its version, as major.minor.
pub(crate) fn version() -> Result<String, NvrtcError> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: there is room for both numbers.
    unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) }.result()?;
    Ok(format!("{major}.{minor}"))
}

/// What it is told of `program`, for GPUs of this compute capability.
pub(crate) fn options(program: &Program, (major, minor): (i32, i32)) -> Vec<String> {
    // Unless told so, it takes lambdas that are templates for the processor's.
    let language = ["--std=c++17".to_owned(), "--device-as-default-execution-space".to_owned()];
    [program.options.as_slice(), &language, &[format!("--gpu-architecture=sm_{major}{minor}")]].concat()
}

/// Machine code of `source`; what the compiler says if there is none.
pub(crate) fn compile(source: &str, options: &[String]) -> Result<Vec<u8>, String> {
    let source = CString::new(source).map_err(|error| error.to_string())?;
    let program = Compilation::new(&source).map_err(|error| format!("{error:?}"))?;
    program.compile(options).map_err(|error| format!("{error:?}\n{}", program.log()))
}

struct Compilation(sys::nvrtcProgram);

impl Compilation {
    fn new(source: &CStr) -> Result<Self, NvrtcError> {
        create_program(source, None).map(Self)
    }

    fn compile(&self, options: &[String]) -> Result<Vec<u8>, NvrtcError> {
        // SAFETY: the program is there.
        unsafe { compile_program(self.0, options) }?;
        let mut bytes = 0;
        // SAFETY: the program is there and compiled; there is room for the number.
        unsafe { sys::nvrtcGetCUBINSize(self.0, &raw mut bytes) }.result()?;
        let mut code = vec![0_u8; bytes];
        // SAFETY: there is room for as many bytes.
        unsafe { sys::nvrtcGetCUBIN(self.0, code.as_mut_ptr().cast::<c_char>()) }.result()?;
        Ok(code)
    }

    /// What the compiler said.
    fn log(&self) -> String {
        // SAFETY: the program is there.
        let log = unsafe { get_program_log(self.0) }.unwrap_or_default();
        let bytes: Vec<u8> = log.into_iter().map(|byte| byte as u8).take_while(|byte| *byte != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Compilation {
    fn drop(&mut self) {
        // SAFETY: nobody else has it. Whatever comes of that, there is nobody to tell.
        let _ = unsafe { destroy_program(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Constants;

    #[test]
    #[ignore = "needs NVRTC, but no GPU: crates/gpu/stand-in/rehearse.py"]
    fn nvrtc_compiles_all_kernels() {
        let model = Constants { width: 64, heads: 2, tokens: 49, classes: 6, grid: 7, class_token: false, bf16: false };
        let with_class = Constants { class_token: true, tokens: 50, ..model };
        let models = [model, with_class].into_iter().flat_map(|model| [model, Constants { bf16: true, ..model }]);
        for program in models.map(|model| model.program()).chain([Program::pass()]) {
            let capabilities = if program.bf16 { &[(8, 0), (9, 0)][..] } else { &[(7, 5), (8, 0), (9, 0)] };
            for capability in capabilities {
                let code = compile(program.source, &options(&program, *capability));
                let code = code.unwrap_or_else(|log| panic!("{capability:?}, {:?}: {log}", program.options));
                assert!(!code.is_empty());
            }
        }
    }
}
