//! Many bad connections at a time. The next review is served while they are still there.

use std::io::Write as _;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use super::fuzz::ground;
use super::stage::{Client, Stage, pod, post, receive, review, send};

/// More than there are seats.
const CROWD: usize = 300;
/// Who comes next waits until those who make us wait have had their second.
const SOON: Duration = Duration::from_secs(4);

/// Clients that are made at a time; each handshake costs both sides some milliseconds.
fn crowd(make: impl Fn(usize) -> Client + Sync) -> Vec<Client> {
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..4)
            .map(|part| {
                scope.spawn({
                    let make = &make;
                    move || (part..CROWD).step_by(4).map(make).collect::<Vec<_>>()
                })
            })
            .collect();
        parts.into_iter().flat_map(|part| part.join().expect("connected")).collect()
    })
}

#[test]
fn slow_bodies_do_not_keep_the_next_review_out() {
    let stage = Stage::open(ground::webhook());
    let body = review(&pod("agent:1", "Never")).to_string();
    let bytes = post("/validate", &body);
    let slow = crowd(|_| {
        let mut client = stage.connect().expect("connected");
        client.write_all(&bytes[..bytes.len() - 10]).and_then(|()| client.flush()).expect("half is sent");
        client
    });
    stage.serves_the_next_within(SOON);
    drop(slow);
    stage.serves_the_next();
}

#[test]
fn large_bodies_that_stall_do_not_keep_small_reviews_waiting_and_are_told() {
    let stage = Stage::open(ground::webhook());
    let body = super::stage::review_of_size(6 << 20);
    let bytes = post("/validate?timeout=10s", &body);
    let mut stalled: Vec<Client> = (0..8)
        .map(|_| {
            let mut client = stage.connect().expect("connected");
            client.write_all(&bytes[..200_000]).and_then(|()| client.flush()).expect("a piece is sent");
            client
        })
        .collect();
    stage.serves_the_next();
    // Those who have the room lose it after two seconds, so a large review that is all there is served too.
    let start = Instant::now();
    let answer = stage.send(&bytes).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(start.elapsed() < Duration::from_secs(9), "{:?}", start.elapsed());
    let told = receive(&mut stalled[0]).expect("an answer");
    assert!(told.status == 408 && told.body.contains("did not arrive within 2.0 s"), "{} {}", told.status, told.body);
}

#[test]
fn a_slow_body_is_told_in_the_callers_own_time_and_its_connection_is_closed() {
    let stage = Stage::open(ground::webhook());
    let mut client = stage.connect().expect("connected");
    let start = Instant::now();
    client
        .write_all(b"POST /validate?timeout=1s HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nhalf")
        .and_then(|()| client.flush())
        .expect("half is sent");
    let told = receive(&mut client).expect("an answer");
    assert!(told.status == 408 && told.head.to_ascii_lowercase().contains("connection: close"), "{}", told.head);
    assert!(start.elapsed() < Duration::from_secs(3));
    stage.serves_the_next();
}

#[test]
fn bodies_that_break_off_leave_the_next_one_served() {
    let stage = Stage::open(ground::webhook());
    for _ in 0..50 {
        let mut client = stage.connect().expect("connected");
        client
            .write_all(b"POST /validate HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nhalf")
            .expect("half is sent");
        client.flush().expect("sent");
    }
    stage.serves_the_next();
}

#[test]
fn slow_heads_and_idle_connections_do_not_keep_the_next_review_out() {
    let stage = Stage::open(ground::webhook());
    let bytes = post("/validate", &review(&pod("agent:1", "Never")).to_string());
    let waiting = crowd(|number| {
        let mut client = stage.connect().expect("connected");
        // A first request in order, and then silence, or a head that does not end.
        if send(&mut client, &bytes).is_ok() && number % 2 == 0 {
            let _ = client.write_all(b"POST /validate HTTP/1.1\r\nx-slow: ").and_then(|()| client.flush());
        }
        client
    });
    stage.serves_the_next_within(SOON);
    drop(waiting);
}

#[test]
fn handshakes_that_stall_do_not_keep_the_next_review_out() {
    let stage = Stage::open(ground::webhook());
    let hello = [0x16, 3, 1, 2, 0];
    let stalled: Vec<TcpStream> = (0..CROWD)
        .map(|_| {
            let mut stream = stage.plain().expect("connected");
            stream.write_all(&hello).expect("a piece of a hello");
            stream
        })
        .collect();
    stage.serves_the_next_within(SOON);
    drop(stalled);
}

#[test]
fn who_never_reads_the_answers_does_not_keep_the_next_review_out() {
    let stage = Stage::open(ground::webhook());
    // Answers of some 30 kB, more of them than the buffers between us can hold.
    let container = |n| json!({"name": format!("c{n}"), "image": format!("Broken Image {n}!")});
    let object = json!({"spec": {"containers": (0..100).map(container).collect::<Vec<_>>()}});
    let many = post("/validate", &review(&object).to_string()).repeat(500);
    let deaf: Vec<Client> = (0..4)
        .map(|_| {
            let mut client = stage.connect().expect("connected");
            client.sock.set_write_timeout(Some(Duration::from_millis(500))).expect("a socket");
            let _ = client.write_all(&many);
            client
        })
        .collect();
    stage.serves_the_next_within(SOON);
    drop(deaf);
}

/// Kills its process however the test ends.
struct Clients(Child);

impl Drop for Clients {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const CROWD_AT: &str = "PULLGUARD_TEST_CROWD_AT";
const THOUSANDS: usize = 3_000;

#[test]
fn thousands_of_connections_that_say_nothing_do_not_keep_the_next_review_out() {
    let stage = Stage::open(ground::webhook());
    // In a process of its own: a process may often have 1,024 files only.
    let program = std::env::current_exe().expect("this program");
    let clients = Command::new("sh")
        .args(["-c", "ulimit -n 4096 && exec \"$0\" --exact crowds::silent_clients --ignored --nocapture"])
        .arg(program)
        .env(CROWD_AT, stage.address.to_string())
        .stdout(Stdio::piped())
        .spawn();
    let mut clients = Clients(clients.expect("a shell"));
    let mut said = String::new();
    let mut out = std::io::BufReader::new(clients.0.stdout.take().expect("piped"));
    while !said.contains("all are connected") {
        let count = std::io::BufRead::read_line(&mut out, &mut said).expect("text");
        assert!(count > 0, "the clients have ended: {said}");
    }
    stage.serves_the_next_within(SOON);
}

#[test]
#[ignore = "the clients of the test above, in a process of their own"]
fn silent_clients() {
    let address = std::env::var(CROWD_AT).expect("started by the test above");
    let silent: Vec<TcpStream> = (0..THOUSANDS).map(|_| TcpStream::connect(&address).expect("connected")).collect();
    println!("all are connected");
    std::thread::sleep(Duration::from_secs(60));
    drop(silent);
}
