//! Weights from the Hub, each fetch in a process of its own: the Hub's address and cache come from the
//! environment.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up has failed")]

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use backbone::fetch_weights;

const MODEL: &str = "timm/resnet18.tv_in1k";

/// Nothing listens on the discard port.
const NOBODY: &str = "http://127.0.0.1:9";

/// Where the child writes its result; set only in the child.
const RESULT: &str = "FMSTUDY_TEST_FETCH_RESULT";

/// What the other tests run in a process of its own; passes at once elsewhere.
#[test]
fn child() {
    let Some(result) = env::var_os(RESULT) else { return };
    let text = match fetch_weights(MODEL) {
        Ok(path) => format!("ok {}", path.display()),
        Err(error) => error.to_string(),
    };
    fs::write(result, text).unwrap();
}

/// The result of fetching from `endpoint` with the cache in `folder`, and how long it took.
fn fetch(endpoint: &str, folder: &Path) -> (String, Duration) {
    let result = folder.join("result");
    let start = Instant::now();
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "child"])
        .env(RESULT, &result)
        .env("HF_ENDPOINT", endpoint)
        .env("HF_HOME", folder.join("hf"))
        .env_remove("HF_HUB_CACHE")
        .env_remove("HUGGINGFACE_HUB_CACHE")
        .env("NO_PROXY", "*")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    (fs::read_to_string(result).unwrap(), start.elapsed())
}

/// Serves `content` as every file of every model, for as long as the test runs.
fn hub(content: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            answer(stream.unwrap(), content);
        }
    });
    address
}

fn answer(mut stream: TcpStream, content: &str) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let _headers = lines.take_while(|line| !line.is_empty()).count();
    assert!(request.contains("/timm/resnet18.tv_in1k/resolve/main/model.safetensors"), "{request}");
    let body = if request.starts_with("HEAD") { "" } else { content };
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let length = content.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nETag: \"abc\"\r\nX-Repo-Commit: {commit}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
    .unwrap();
}

#[test]
fn without_the_hub_the_error_says_both_ways_out_soon() {
    let folder = tempfile::tempdir().unwrap();
    let (error, took) = fetch(NOBODY, folder.path());
    println!("{took:?}: {error}");
    let cause = format!("cannot fetch `model.safetensors` of `{MODEL}` from the Hugging Face Hub: Connection refused");
    assert!(error.starts_with(&cause), "{error}");
    assert!(error.contains("hint: connect to the Internet once (the file is then kept)"), "{error}");
    assert!(
        error.contains("or set `extract.weights` to a local .safetensors, .npz or .pth file of ResNet-18"),
        "{error}"
    );
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn a_fetched_file_is_kept_and_then_serves_without_the_hub() {
    let folder = tempfile::tempdir().unwrap();
    let (first, _) = fetch(&hub("the weights"), folder.path());
    let path = first.strip_prefix("ok ").unwrap_or_else(|| panic!("{first}"));
    assert!(path.ends_with("model.safetensors"), "{path}");
    assert_eq!(fs::read_to_string(path).unwrap(), "the weights");
    for endpoint in [&hub("other weights"), NOBODY] {
        let (again, took) = fetch(endpoint, folder.path());
        println!("kept: {took:?}");
        assert_eq!(again, first);
        assert_eq!(fs::read_to_string(path).unwrap(), "the weights");
    }
}

#[test]
fn a_path_is_taken_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weights");
    fs::write(&file, "").unwrap();
    for path in ["weights.pth", "../absent.npz", "one/two.safetensors", "a/b/c", file.to_str().unwrap()] {
        assert_eq!(fetch_weights(path).unwrap(), Path::new(path));
    }
}
