use std::fmt::Display;

/// Whether an error, told with its causes, says that a GPU had too little memory, so that less at once may do.
pub(crate) fn says_out_of_memory(error: impl Display) -> bool {
    // It comes from four libraries, most of which give it as text only: our kernels' machine, the driver, cuDNN and cuBLAS.
    const SIGNS: [&str; 5] = [
        "bytes of memory left",
        "CUDA_ERROR_OUT_OF_MEMORY",
        "out of memory",
        "STATUS_ALLOC_FAILED",
        // As cuDNN 9 calls it.
        "_ALLOCATION_FAILED",
    ];
    let text = error.to_string();
    SIGNS.iter().any(|sign| text.contains(sign))
}

/// The same of an error that has its causes with it.
pub(crate) fn is_out_of_memory(error: &anyhow::Error) -> bool {
    says_out_of_memory(format!("{error:#}"))
}

/// What may be done about an error that says so in spite of all that has been tried, and nothing else about that.
pub fn memory_hint(error: &str) -> Option<&'static str> {
    (says_out_of_memory(error) && !error.contains("hint: ")).then_some(
        "hint: the GPU has too little free memory even for the least at once; stop what else runs on it, or choose another \
         (device=cuda:1) or the processor (device=cpu)",
    )
}

#[cfg(test)]
mod tests {
    use vit::VitError;

    use super::*;

    #[test]
    fn only_what_less_at_once_may_mend_counts() {
        let driver = candle_core::Error::Msg("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")".to_owned());
        assert!(says_out_of_memory(&driver));
        let of_batch = VitError::Caller { step: 7, source: Box::new(driver) };
        assert!(says_out_of_memory(format!("{:#}", anyhow::Error::from(of_batch).context("train fm2"))));
        assert!(says_out_of_memory("CUDNN_STATUS_ALLOC_FAILED"));
        assert!(says_out_of_memory("CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"));
        assert!(!says_out_of_memory(
            "DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, \"an illegal memory access was encountered\")"
        ));
        assert!(!says_out_of_memory("cannot allocate a thread"));
        assert!(memory_hint("candle: DriverError(CUDA_ERROR_OUT_OF_MEMORY)").is_some());
        assert_eq!(memory_hint("CUDA_ERROR_OUT_OF_MEMORY\n\nhint: another"), None);
        assert_eq!(memory_hint("no such file"), None);
    }
}
