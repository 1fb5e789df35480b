use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::*;

/// How the test server misbehaves.
#[derive(Clone, Copy, PartialEq)]
enum Manners {
    Good,
    IgnoresRanges,
    /// Closes the connection after so many bytes of the body.
    Hangs(usize),
    NotFound,
    WrongRange,
}

/// A server of one file on the loopback; remembers the range headers it was sent.
struct Server {
    url: String,
    ranges: Arc<Mutex<Vec<Option<String>>>>,
}

fn serve(content: Vec<u8>, manners: Manners) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/data/file.bin", listener.local_addr().unwrap());
    let ranges = Arc::new(Mutex::new(Vec::new()));
    let seen = ranges.clone();
    // Ends with the test process; a test may well not connect.
    thread::spawn(move || {
        for stream in listener.incoming() {
            answer(stream.unwrap(), &content, manners, &seen).unwrap();
        }
    });
    Server { url, ranges }
}

fn answer(
    mut stream: TcpStream,
    content: &[u8],
    manners: Manners,
    seen: &Mutex<Vec<Option<String>>>,
) -> std::io::Result<()> {
    let mut range = None;
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("range: bytes=") {
            range = Some(value.to_owned());
        }
    }
    seen.lock().unwrap().push(range.clone());
    let start = range.and_then(|range| range.trim_end_matches('-').parse::<usize>().ok());
    let (status, extra, body) = match (manners, start) {
        (Manners::NotFound, _) => ("404 Not Found", String::new(), &b"gone"[..]),
        (Manners::Good | Manners::Hangs(_), Some(start)) => {
            let range = format!("Content-Range: bytes {start}-{}/{}\r\n", content.len() - 1, content.len());
            ("206 Partial Content", range, &content[start..])
        }
        (Manners::WrongRange, Some(_)) => ("206 Partial Content", "Content-Range: bytes 0-1/2\r\n".to_owned(), content),
        _ => ("200 OK", String::new(), content),
    };
    write!(stream, "HTTP/1.1 {status}\r\n{extra}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    let sent = if let Manners::Hangs(n) = manners { n.min(body.len()) } else { body.len() };
    stream.write_all(&body[..sent])
}

fn content() -> Vec<u8> {
    (0..200_000u32).flat_map(|i| i.to_le_bytes()).collect()
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Case {
    dir: tempfile::TempDir,
    server: Server,
    sha256: String,
}

impl Case {
    fn new(manners: Manners) -> Case {
        Case { dir: tempfile::tempdir().unwrap(), server: serve(content(), manners), sha256: digest(&content()) }
    }

    fn run(&self) -> Result<PathBuf, DatasetError> {
        self.run_with(&mut |_| ())
    }

    fn run_with(&self, progress: &mut dyn FnMut(u64)) -> Result<PathBuf, DatasetError> {
        let (url, dir) = (&self.server.url, self.dir.path());
        Download { url, file: "file.bin", sha256: &self.sha256, len_bytes: content().len() as u64, dir }.run(progress)
    }

    fn part(&self) -> PathBuf {
        self.dir.path().join("file.bin.part")
    }

    fn ranges(&self) -> Vec<Option<String>> {
        self.server.ranges.lock().unwrap().clone()
    }
}

#[test]
fn whole_download_then_no_request() {
    let case = Case::new(Manners::Good);
    let mut seen = Vec::new();
    let path = case.run_with(&mut |done| seen.push(done)).unwrap();
    assert_eq!(fs::read(&path).unwrap(), content());
    assert!(!case.part().exists());
    assert!(seen.is_sorted() && seen.first() == Some(&0) && seen.last() == Some(&800_000), "{seen:?}");
    assert_eq!(case.run().unwrap(), path);
    assert_eq!(case.ranges(), [None], "the second run asked nothing");

    fs::write(&path, b"something else").unwrap();
    let error = case.run().unwrap_err().to_string();
    assert!(error.contains("is kept; move it away"), "{error}");
    assert!(path.exists());
}

#[test]
fn resumes_a_partial_file() {
    let case = Case::new(Manners::Good);
    fs::write(case.part(), &content()[..300_000]).unwrap();
    let mut first = None;
    let path = case.run_with(&mut |done| _ = first.get_or_insert(done)).unwrap();
    assert_eq!((fs::read(path).unwrap(), first), (content(), Some(300_000)));
    assert_eq!(case.ranges(), [Some("300000-".to_owned())]);

    let case = Case::new(Manners::IgnoresRanges);
    fs::write(case.part(), b"leftover of another file").unwrap();
    assert_eq!(fs::read(case.run().unwrap()).unwrap(), content());

    let case = Case::new(Manners::NotFound);
    fs::write(case.part(), content()).unwrap();
    assert_eq!(fs::read(case.run().unwrap()).unwrap(), content());
    assert!(case.ranges().is_empty(), "a complete partial file needs no request");
}

#[test]
fn an_interruption_keeps_what_arrived() {
    let case = Case::new(Manners::Hangs(500_000));
    let error = case.run().unwrap_err();
    assert!(matches!(error, DatasetError::Interrupted { done_bytes: 500_000, total_bytes: 800_000, .. }), "{error}");
    assert_eq!(fs::metadata(case.part()).unwrap().len(), 500_000);
    assert_eq!(fs::read(case.run().unwrap()).unwrap(), content());
    assert_eq!(case.ranges(), [None, Some("500000-".to_owned())]);
}

#[test]
fn a_wrong_digest_removes_the_download() {
    let mut case = Case::new(Manners::Good);
    case.sha256 = digest(b"what was published");
    let error = case.run().unwrap_err();
    assert!(matches!(error, DatasetError::Digest { .. }), "{error}");
    assert_eq!(fs::read_dir(case.dir.path()).unwrap().count(), 0);

    // A partial file of other data is found out in the same way.
    let case = Case::new(Manners::Good);
    fs::write(case.part(), [1; 1000]).unwrap();
    assert!(matches!(case.run(), Err(DatasetError::Digest { .. })));
    assert_eq!(fs::read(case.run().unwrap()).unwrap(), content());
}

#[test]
fn refusals_and_offline() {
    let case = Case::new(Manners::NotFound);
    let error = case.run().unwrap_err().to_string();
    assert!(error.contains("the server answered 404 Not Found") && error.contains("put file.bin in"), "{error}");
    assert!(!case.part().exists());

    let case = Case::new(Manners::WrongRange);
    fs::write(case.part(), &content()[..300]).unwrap();
    assert!(case.run().unwrap_err().to_string().contains("another range"));
    assert_eq!(fs::metadata(case.part()).unwrap().len(), 300);

    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}/file.bin");
    let dir = tempfile::tempdir().unwrap();
    let download = Download { url: &url, file: "file.bin", sha256: "", len_bytes: 1, dir: dir.path() };
    let error = download.run(&mut |_| ()).unwrap_err();
    assert!(matches!(error, DatasetError::Offline { .. }), "{error}");
    let error = error.to_string();
    assert!(error.starts_with("cannot reach 127.0.0.1: ") && error.contains("seems to be offline"), "{error}");
    assert!(error.contains(&format!("download {url} yourself")), "{error}");

    let error = fetch("imagenet", dir.path(), &mut |_, _| ()).unwrap_err().to_string();
    assert!(error.contains("known: cifar10, mnist, fashion-mnist"), "{error}");
}
