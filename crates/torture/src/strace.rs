//! What a process asks the file system for, recorded by strace.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context as _, Result, bail};

/// Something done to files or folders. Paths are as the process had them, made absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// A new, empty file, or an old one made empty.
    Create(PathBuf),
    /// Bytes written at the end of the file, or at a place.
    Write(PathBuf, Option<u64>, Vec<u8>),
    /// Further writes without a place begin here.
    Seek(PathBuf, u64),
    /// A file cut or stretched to a length.
    Truncate(PathBuf, u64),
    /// All bytes of a file, or all names in a folder, brought to the disk.
    Sync(PathBuf),
    /// A file given another name.
    Rename(PathBuf, PathBuf),
    /// A name taken away.
    Remove(PathBuf),
    /// A new folder.
    MakeFolder(PathBuf),
}

/// The calls that change files or folders.
const CALLS: &str = "openat,creat,write,pwrite64,lseek,ftruncate,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,\
                     rmdir,mkdir,mkdirat,writev,pwritev,pwritev2,copy_file_range,sendfile,fallocate,link,linkat,truncate";

/// Whether there is an strace that may trace.
pub fn is_there() -> bool {
    Command::new("strace").args(["-o", "/dev/null", "true"]).output().is_ok_and(|output| output.status.success())
}

/// Runs `command`, whose folder is set, to its end and gives what it did below `folder`, in the order in which it was done.
pub fn record(command: &Command, folder: &Path) -> Result<(Output, Vec<Call>)> {
    let traces = tempfile::tempdir()?;
    let prefix = traces.path().join("trace");
    let mut strace = around(command);
    // One file per thread, so that no call is cut in two by another thread's; their times put them in order.
    strace.args(["-ff", "-y", "-xx", "--absolute-timestamps=format:unix,precision:ns", "-s", "1000000000"]);
    strace.arg("-e").arg(format!("trace={CALLS}")).arg("-o").arg(&prefix);
    let output = with_arguments(strace, command).output().context("cannot run strace")?;
    let mut lines: Vec<(String, String)> = Vec::new();
    for entry in fs_err::read_dir(traces.path())? {
        let mut text = String::new();
        fs_err::File::open(entry?.path())?.read_to_string(&mut text)?;
        let timed = text.lines().filter_map(|line| line.split_once(' '));
        lines.extend(timed.map(|(time, call)| (time.to_owned(), call.to_owned())));
    }
    // Times are of one length for the next two centuries.
    lines.sort();
    let current = command.get_current_dir().context("the command has no folder")?;
    let mut calls = Vec::new();
    for (_, line) in &lines {
        calls.extend(parse(line, current)?);
    }
    calls.retain(|call| call.is_below(folder));
    Ok((output, calls))
}

/// `command` under an strace that makes its `which`-th call of each of `calls` and all later ones fail with `error`.
pub fn failing(command: &Command, calls: &str, error: &str, which: usize) -> Result<Output> {
    let mut strace = around(command);
    strace.args(["-f", "-o", "/dev/null", "-e", &format!("trace={calls}")]);
    strace.args(["-e", &format!("inject={calls}:error={error}:when={which}+")]);
    with_arguments(strace, command).output().context("cannot run strace")
}

fn around(command: &Command) -> Command {
    let mut strace = Command::new("strace");
    if let Some(folder) = command.get_current_dir() {
        strace.current_dir(folder);
    }
    strace
}

fn with_arguments(mut strace: Command, command: &Command) -> Command {
    strace.arg("--").arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    strace
}

impl Call {
    fn is_below(&self, folder: &Path) -> bool {
        match self {
            Self::Create(path)
            | Self::Write(path, ..)
            | Self::Seek(path, _)
            | Self::Truncate(path, _)
            | Self::Sync(path)
            | Self::Remove(path)
            | Self::MakeFolder(path)
            | Self::Rename(path, _) => path.starts_with(folder),
        }
    }
}

/// A line such as `write(3</a/file>, "\x61", 1) = 1` of a process in the folder `current`; none if the call failed or changes
/// nothing.
fn parse(line: &str, current: &Path) -> Result<Option<Call>> {
    let Some((call, rest)) = line.split_once('(') else { return Ok(None) };
    let Some((arguments, result)) = rest.rsplit_once(" = ") else { return Ok(None) };
    if result.starts_with('-') || result.starts_with('?') {
        return Ok(None);
    }
    let arguments = arguments.trim_end().strip_suffix(')').context("a call has no end")?;
    let fields: Vec<&str> = arguments.split(", ").collect();
    let field = |at: usize| fields.get(at).copied().with_context(|| format!("{call} has no argument {at}"));
    // A call may write less than it is asked to.
    let written = |text: &str| Ok::<_, anyhow::Error>(unescaped(text)?[..result.parse()?].to_vec());
    let path = |at: usize| Ok::<_, anyhow::Error>(current.join(path_of(field(at)?)?));
    let path_in = |folder: usize, at: usize| Ok::<_, anyhow::Error>(opened(field(folder)?)?.join(path_of(field(at)?)?));
    let done = match call {
        "openat" => {
            // One that is created without either may be there, and stays as it is: the lock.
            let is_new = ["O_EXCL", "O_TRUNC"].iter().any(|flag| fields[2..].join("").contains(flag));
            is_new.then(|| opened(result)).transpose()?.map(Call::Create)
        }
        "write" => Some(Call::Write(opened(field(0)?)?, None, written(field(1)?)?)),
        "pwrite64" => Some(Call::Write(opened(field(0)?)?, Some(field(3)?.parse()?), written(field(1)?)?)),
        "lseek" => Some(Call::Seek(opened(field(0)?)?, result.parse()?)),
        "ftruncate" => Some(Call::Truncate(opened(field(0)?)?, field(1)?.parse()?)),
        "fsync" | "fdatasync" => Some(Call::Sync(opened(field(0)?)?)),
        "rename" => Some(Call::Rename(path(0)?, path(1)?)),
        "renameat" | "renameat2" => Some(Call::Rename(path_in(0, 1)?, path_in(2, 3)?)),
        "unlink" | "rmdir" => Some(Call::Remove(path(0)?)),
        "unlinkat" => Some(Call::Remove(path_in(0, 1)?)),
        "mkdir" => Some(Call::MakeFolder(path(0)?)),
        "mkdirat" => Some(Call::MakeFolder(path_in(0, 1)?)),
        // Nothing that the program does not do is passed over in silence.
        other => bail!("no model of `{other}`: {}", &line[..line.len().min(200)]),
    };
    Ok(done)
}

/// The path in `3</a/file>`.
fn opened(descriptor: &str) -> Result<PathBuf> {
    let inner = descriptor.split_once('<').and_then(|(_, rest)| rest.rsplit_once('>'));
    let (inner, _) = inner.with_context(|| format!("`{descriptor}` names no file"))?;
    Ok(PathBuf::from(String::from_utf8_lossy(&bytes_of(inner)?).trim_end_matches(" (deleted)")))
}

fn path_of(text: &str) -> Result<PathBuf> {
    Ok(PathBuf::from(String::from_utf8_lossy(&unescaped(text)?).into_owned()))
}

/// The bytes of `"\x61\x62"`.
fn unescaped(text: &str) -> Result<Vec<u8>> {
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    bytes_of(inner.with_context(|| format!("`{}` is no string", &text[..text.len().min(80)]))?)
}

/// Escaped bytes, or text as it is.
fn bytes_of(text: &str) -> Result<Vec<u8>> {
    if !text.starts_with("\\x") {
        return Ok(text.as_bytes().to_vec());
    }
    text.split("\\x").skip(1).map(|digits| Ok(u8::from_str_radix(digits, 16)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        let call = |line| parse(line, Path::new("/home")).unwrap().unwrap();
        assert_eq!(
            call(r#"openat(AT_FDCWD</a>, "\x62", O_RDWR|O_CREAT|O_EXCL|O_CLOEXEC, 0600) = 3</a/b>"#),
            Call::Create("/a/b".into())
        );
        assert_eq!(call(r#"write(3</a/b>, "\x68\x69", 2) = 2"#), Call::Write("/a/b".into(), None, b"hi".to_vec()));
        assert_eq!(call(r#"write(3</a/b>, "\x68\x69", 2) = 1"#), Call::Write("/a/b".into(), None, b"h".to_vec()));
        assert_eq!(call("lseek(3</a/b>, 0, SEEK_END) = 7"), Call::Seek("/a/b".into(), 7));
        assert_eq!(
            call(r#"renameat(AT_FDCWD</>, "\x2f\x61", AT_FDCWD</>, "\x2f\x62") = 0"#),
            Call::Rename("/a".into(), "/b".into())
        );
        assert_eq!(call(r#"mkdir("\x61", 0777) = 0"#), Call::MakeFolder("/home/a".into()));
        assert_eq!(call("fsync(3</a>) = 0"), Call::Sync("/a".into()));
        let nothing = |line| parse(line, Path::new("/home")).unwrap();
        assert_eq!(nothing(r#"unlink("\x61") = -1 ENOENT (No such file or directory)"#), None);
        assert_eq!(nothing(r#"openat(AT_FDCWD</a>, "\x62", O_RDWR|O_CREAT|O_CLOEXEC, 0666) = 3</a/b>"#), None);
        parse("splice(3</a>, NULL, 4</b>, NULL, 10, 0) = 10", Path::new("/home")).unwrap_err();
    }
}
