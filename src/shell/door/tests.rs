//! The door with real sockets, a real certificate and the clients that come to it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream as StdStream;

use axum::extract::Request;
use axum::routing::post;
use jiff::Timestamp;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio::sync::Notify;

use super::*;
use crate::shell::certificates::{Keyring, Renewal};

struct Open {
    address: SocketAddr,
    serving: Arc<Serving>,
    keyring: Keyring,
    handle: Handle<SocketAddr>,
    /// A request has come in, at least its head.
    begun: Arc<Notify>,
    server: tokio::task::JoinHandle<io::Result<()>>,
}

type Client = StreamOwned<ClientConnection, StdStream>;

fn keyring() -> Keyring {
    Keyring::default().renewed(Renewal::Authority, "pullguard", Timestamp::now()).expect("certificates")
}

/// A door before a router that counts bytes.
async fn open() -> Open {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (serving, keyring, handle) = (Arc::new(Serving::default()), keyring(), Handle::new());
    serving.set(&keyring.certificate, &keyring.key).expect("a certificate");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let begun = Arc::new(Notify::new());
    let count = {
        let begun = Arc::clone(&begun);
        move |request: Request| {
            begun.notify_one();
            async { axum::body::to_bytes(request.into_body(), 1 << 20).await.expect("a body").len().to_string() }
        }
    };
    let router = Router::new().route("/", post(count));
    let server = tokio::spawn(serve(listener, Arc::clone(&serving), router, handle.clone()));
    Open { address, serving, keyring, handle, begun, server }
}

fn connect(address: SocketAddr, ca: &str) -> io::Result<Client> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).expect("a CA")).expect("a root");
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("pullguard.pullguard.svc").expect("a name");
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut stream = StdStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    connection.complete_io(&mut stream)?;
    Ok(StreamOwned::new(connection, stream))
}

/// One request on a connection that stays open; the body of the answer.
fn ask(client: &mut Client, body: &str) -> io::Result<String> {
    write!(client, "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
    client.flush()?;
    let mut text = String::new();
    loop {
        let mut piece = [0; 1024];
        let count = client.read(&mut piece)?;
        text.push_str(&String::from_utf8_lossy(&piece[..count]));
        if let Some((head, answer)) = text.split_once("\r\n\r\n")
            && head.contains(&format!("content-length: {}", answer.len()))
        {
            return Ok(answer.to_owned());
        }
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_exchanged_without_dropping_a_connection() {
    let door = open().await;
    let (address, old) = (door.address, door.keyring.ca.clone());
    let ca = old.clone();
    let mut client = blocking(move || connect(address, &ca)).await.expect("connected");
    client = blocking(move || (ask(&mut client, "abc").expect("answered") == "3").then_some(client)).await.expect("3");
    let new = keyring();
    door.serving.set(&new.certificate, &new.key).expect("a certificate");
    assert_eq!(blocking(move || ask(&mut client, "abcd")).await.expect("the old connection"), "4");
    let ca = new.ca.clone();
    assert_eq!(blocking(move || ask(&mut connect(address, &ca)?, "abcde")).await.expect("a new one"), "5");
    assert!(blocking(move || connect(address, &old)).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_speaks_no_tls_is_told() {
    let door = open().await;
    let address = door.address;
    for sent in
        ["GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), format!("POST / HTTP/1.1\r\n\r\n{}", "x".repeat(500_000))]
    {
        let told = blocking(move || {
            let mut stream = StdStream::connect(address)?;
            stream.write_all(sent.as_bytes())?;
            stream.shutdown(std::net::Shutdown::Write)?;
            let mut told = String::new();
            stream.read_to_string(&mut told).map(|_| told)
        });
        let told = told.await.expect("an answer");
        let (head, text) = told.split_once("\r\n\r\n").expect("a head");
        assert!(
            head.starts_with("HTTP/1.1 400") && head.contains(&format!("Content-Length: {}", text.len())),
            "{told}"
        );
        assert!(text.contains("TLS only"), "{told}");
    }
    let ca = door.keyring.ca.clone();
    assert_eq!(blocking(move || ask(&mut connect(address, &ca)?, "a")).await.expect("the next"), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_break_off_or_say_nothing_leave_the_next_one_served() {
    let door = open().await;
    let (address, ca) = (door.address, door.keyring.ca.clone());
    let answer = blocking(move || {
        let silent: Vec<_> = (0..50).map(|_| StdStream::connect(address)).collect::<Result<_, _>>()?;
        let mut garbage = StdStream::connect(address)?;
        garbage.write_all(&[TLS_HANDSHAKE, 3, 1, 0xff, 0xff])?;
        let mut half = connect(address, &ca)?;
        write!(half, "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nhalf")?;
        half.flush()?;
        drop(half);
        let answer = ask(&mut connect(address, &ca)?, "abc");
        drop((silent, garbage));
        answer
    });
    assert_eq!(answer.await.expect("the next"), "3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_being_answered_is_answered_before_the_door_closes() {
    let door = open().await;
    let (address, ca) = (door.address, door.keyring.ca.clone());
    let client = tokio::task::spawn_blocking(move || {
        let mut client = connect(address, &ca)?;
        // Once the server asks for the body, the request is being answered.
        write!(client, "POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n")?;
        client.flush()?;
        let mut asked = [0; 25];
        client.read_exact(&mut asked)?;
        assert_eq!(asked, *b"HTTP/1.1 100 Continue\r\n\r\n");
        client.write_all(b"a")?;
        client.flush()?;
        std::thread::sleep(Duration::from_millis(300));
        client.write_all(b"bc")?;
        client.flush()?;
        let mut told = [0; 1024];
        let count = client.read(&mut told)?;
        Ok::<_, io::Error>(String::from_utf8_lossy(&told[..count]).into_owned())
    });
    // Sooner, the connection would be an idle one, which is closed at once.
    door.begun.notified().await;
    door.handle.graceful_shutdown(Some(Duration::from_secs(5)));
    let told = client.await.expect("no panic").expect("an answer");
    assert!(told.ends_with("\r\n\r\n3"), "{told}");
    door.server.await.expect("no panic").expect("served");
    assert!(StdStream::connect(address).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_clients_at_the_side_door_keep_nobody_out() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = tokio::spawn(serve_plain(listener, Router::new().route("/livez", axum::routing::get(async || "ok"))));
    let silent: Vec<StdStream> =
        (0..10 * SIDE_SEATS).map(|_| StdStream::connect(address).expect("connected")).collect();
    let told = blocking(move || {
        let mut stream = StdStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(3)))?;
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
        let mut told = String::new();
        stream.read_to_string(&mut told).map(|_| told)
    });
    let told = told.await.expect("an answer");
    assert!(told.starts_with("HTTP/1.1 200") && told.ends_with("ok"), "{told}");
    // Those who came first had to go.
    let first = silent.into_iter().next().expect("a stream");
    let closed = blocking(move || {
        first.set_read_timeout(Some(Duration::from_secs(3)))?;
        (&first).read(&mut [0])
    });
    match closed.await {
        Ok(count) => assert_eq!(count, 0),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}"),
    }
    server.abort();
}
