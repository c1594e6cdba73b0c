//! The webhook's door: who gets in, and what is said to those who cannot.
//!
//! Enters: connections. Leaves: TLS connections, in bounded number and time, to the router. It must not know what is
//! asked on them; whose turn it is on each, the answerer of its requests says through their [`Turn`].
//!
//! HTTP/1.1 alone is spoken: it is what the API server uses with webhooks, so that calls spread over the replicas (it sets
//! `NextProtos: ["http/1.1"]`, kubernetes/kubernetes#75791), and one protocol less is one attack surface less.

mod places;
#[cfg(test)]
mod tests;

use std::future::{Ready, poll_fn, ready};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use axum_server::Handle;
use axum_server::accept::Accept;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

pub use self::places::{Ours, Turn};
use self::places::{Place, Places};
use super::tls::{Serving, server_config};

/// An API server keeps one connection for each review in flight. Each costs at most some 100 KiB: what was read and not
/// yet taken, a small body, and the buffers of TLS.
const SEATS: usize = 256;
/// A connection that has not said a word yet costs a socket; together with the seats they stay below the 1,024 files that
/// a container may have open where nobody has raised it.
const LOBBY: usize = 256;
/// Who makes us wait longer than that loses the seat when others want one.
const PATIENCE: Duration = Duration::from_secs(1);
/// A connection for which there is no seat by then is closed.
const SEAT_TIME: Duration = Duration::from_secs(5);
/// From the connection to the first byte, to the end of the handshake, and to the head of the first request, each.
const HELLO_TIME: Duration = Duration::from_secs(5);
/// An idle connection is closed after that. The API server closes its own after 90 s: were we the first, a review on its
/// way would meet a closed door.
const IDLE_TIME: Duration = Duration::from_secs(120);
/// Kubelets and Prometheus are few.
const SIDE_SEATS: usize = 32;
/// An idle connection at the side door is closed after that.
const SIDE_IDLE_TIME: Duration = Duration::from_secs(30);
/// Of one connection, what was read and not yet taken by the body's reader; also the longest head of a request.
const BUFFER: usize = 32 << 10;

const TLS_HANDSHAKE: u8 = 0x16;
const NO_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\
    Content-Length: 83\r\n\r\nthis is Pullguard's admission webhook and speaks TLS only: use https:// to call it\n";

/// Serves until the handle says to stop.
///
/// # Errors
/// The listener cannot be used.
pub async fn serve(
    listener: TcpListener,
    serving: Arc<Serving>,
    router: Router,
    handle: Handle<SocketAddr>,
) -> io::Result<()> {
    let door = Door { lobby: Places::new(LOBBY), seats: Places::new(SEATS) };
    let config = RustlsConfig::from_config(server_config(serving));
    let acceptor = RustlsAcceptor::new(config).handshake_timeout(HELLO_TIME).acceptor(door);
    let mut server = axum_server::from_tcp(listener)?
        .acceptor(acceptor)
        .http1_only()
        .first_request_timeout(HELLO_TIME)
        .accept_error_handler(|peer, error| tracing::debug!(?peer, %error, "connection not accepted"))
        .handle(handle);
    server.http_builder().http1().header_read_timeout(IDLE_TIME).max_buf_size(BUFFER);
    server.serve(router.into_make_service()).await
}

/// Serves the probes and the metrics, without TLS: to few at a time, and whoever comes is let in at the cost of whoever is
/// longest there. Files and memory are for reviews.
///
/// # Errors
/// The listener cannot be used.
pub async fn serve_plain(listener: TcpListener, router: Router) -> io::Result<()> {
    let mut server = axum_server::from_tcp(listener)?
        .acceptor(SideDoor(Places::new(SIDE_SEATS)))
        .http1_only()
        .first_request_timeout(HELLO_TIME)
        .accept_error_handler(|peer, error| tracing::debug!(?peer, %error, "connection not accepted"));
    server.http_builder().http1().header_read_timeout(SIDE_IDLE_TIME).max_buf_size(BUFFER);
    server.serve(router.into_make_service()).await
}

#[derive(Clone, Debug)]
struct SideDoor(Places);

impl<S: Send + 'static> Accept<TcpStream, S> for SideDoor {
    type Stream = Seated;
    type Service = S;
    type Future = Ready<io::Result<(Seated, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let Self(places) = self;
        ready(Ok((Seated { stream, place: places.crowd_in() }, service)))
    }
}

#[derive(Clone, Debug)]
struct Door {
    lobby: Places,
    seats: Places,
}

impl<S: Send + 'static> Accept<TcpStream, S> for Door {
    type Stream = Seated;
    type Service = Attended<S>;
    type Future = BoxFuture<'static, io::Result<(Seated, Attended<S>)>>;

    fn accept(&self, mut stream: TcpStream, service: S) -> Self::Future {
        let door = self.clone();
        Box::pin(async move {
            let mut waiting = door.lobby.crowd_in();
            let place = tokio::select! {
                place = door.seat(&mut stream) => place?,
                () = poll_fn(|context| waiting.poll_dismissed(context)) => return Err(crowded()),
            };
            let turn = place.turn().clone();
            Ok((Seated { stream, place }, Attended { service, turn }))
        })
    }
}

impl Door {
    /// A seat for who speaks TLS. Silence takes none.
    async fn seat(&self, stream: &mut TcpStream) -> io::Result<Place> {
        stream.set_nodelay(true)?;
        let mut first = [0];
        timeout(HELLO_TIME, stream.peek(&mut first)).await??;
        let [first] = first;
        if first != TLS_HANDSHAKE {
            let _ = timeout(HELLO_TIME, turn_away(stream)).await;
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no TLS"));
        }
        Ok(timeout(SEAT_TIME, self.seats.sit(PATIENCE)).await?)
    }
}

fn crowded() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "others want the place, and this peer makes us wait")
}

/// Lets each request know whose turn it is on its connection.
#[derive(Clone, Debug)]
struct Attended<S> {
    service: S,
    turn: Turn,
}

impl<S, B> Service<Request<B>> for Attended<S>
where
    S: Service<Request<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let turn = self.turn.clone();
        turn.begin();
        request.extensions_mut().insert(turn.clone());
        let answering = self.service.call(request);
        Box::pin(async move {
            let answered = answering.await;
            turn.begin();
            answered
        })
    }
}

/// What was sent is read before the connection is closed: closed over unread bytes, it would be reset, and the client
/// would not see the answer.
async fn turn_away(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(NO_TLS).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(1 << 20), &mut tokio::io::sink()).await?;
    Ok(())
}

/// A connection that has a seat until it ends, or until it has to go.
#[derive(Debug)]
struct Seated {
    stream: TcpStream,
    place: Place,
}

impl Seated {
    fn may_stay(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.place.poll_dismissed(context) {
            Poll::Ready(()) => Err(crowded()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Seated {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.may_stay(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Seated {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.may_stay(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.may_stay(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
