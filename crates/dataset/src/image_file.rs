use std::path::Path;

use crate::fault::Fault;

/// Longest image file: more than the largest image that is read takes uncompressed.
const MOST_BYTES: u64 = 256 << 20;

/// The bytes of an image file. Nothing else is opened: a pipe waits for ever for who writes to it, a device need not end.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Fault> {
    let unreadable = |error: std::io::Error| Fault::Unreadable { reason: error.to_string() };
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(Fault::NotAFile);
    }
    if metadata.len() > MOST_BYTES {
        return Err(Fault::TooLong { bytes: metadata.len(), limit: MOST_BYTES });
    }
    std::fs::read(path).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn pipes_devices_and_endless_files_are_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::os::unix::fs::symlink("/dev/zero", at("device.png")).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(at("pipe.png")).status().unwrap().success());
        for name in ["device.png", "pipe.png"] {
            assert_eq!(read(&at(name)).unwrap_err(), Fault::NotAFile, "{name}");
        }
        fs_err::File::create(at("long.png")).unwrap().file().set_len(1 << 40).unwrap();
        assert_eq!(read(&at("long.png")).unwrap_err(), Fault::TooLong { bytes: 1 << 40, limit: MOST_BYTES });
        fs_err::write(at("short.png"), b"short").unwrap();
        assert_eq!(read(&at("short.png")).unwrap(), b"short");
    }
}
