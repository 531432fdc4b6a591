//! The compiler of kernels.

use std::ffi::{CStr, CString, c_char};

use cudarc::nvrtc::{
    result::{NvrtcError, compile_program, create_program, destroy_program, get_program_log},
    sys,
};

/// Its version, as major.minor.
pub(crate) fn version() -> Result<String, NvrtcError> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: there is room for both numbers.
    unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) }.result()?;
    Ok(format!("{major}.{minor}"))
}

/// Machine code of `source`; what the compiler says if there is none.
pub(crate) fn compile(source: &str, options: &[String]) -> Result<Vec<u8>, String> {
    let source = CString::new(source).map_err(|error| error.to_string())?;
    let program = Program::new(&source).map_err(|error| format!("{error:?}"))?;
    program.compile(options).map_err(|error| format!("{error:?}\n{}", program.log()))
}

struct Program(sys::nvrtcProgram);

impl Program {
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

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: nobody else has it. Whatever comes of that, there is nobody to tell.
        let _ = unsafe { destroy_program(self.0) };
    }
}
