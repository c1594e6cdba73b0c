//! The webhook's door: who gets in, and what is said to those who cannot.
//!
//! Enters: connections. Leaves: TLS connections, in bounded number and time, to the router. It must not know what is
//! asked on them.
//!
//! HTTP/1.1 alone is spoken: it is what the API server uses with webhooks, so that calls spread over the replicas (it sets
//! `NextProtos: ["http/1.1"]`, kubernetes/kubernetes#75791), and one protocol less is one attack surface less.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum_server::Handle;
use axum_server::accept::Accept;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::tls::{Serving, server_config};

/// An API server keeps one connection for each review in flight. Each costs at most some 100 KiB of buffers.
const SEATS: usize = 512;
/// A connection for which there is no seat by then is closed.
const SEAT_TIME: Duration = Duration::from_secs(5);
/// From the connection to the first byte, to the end of the handshake, and to the head of the first request, each.
const HELLO_TIME: Duration = Duration::from_secs(5);
/// An idle connection is closed after that. The API server closes its own after 90 s: were we the first, a review on its
/// way would meet a closed door.
const IDLE_TIME: Duration = Duration::from_secs(120);
/// Of one connection, what was read and not yet taken by the body's reader.
const BUFFER: usize = 64 << 10;

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
    let door = Door { seats: Arc::new(Semaphore::new(SEATS)) };
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

#[derive(Clone, Debug)]
struct Door {
    seats: Arc<Semaphore>,
}

impl<S: Send + 'static> Accept<TcpStream, S> for Door {
    type Stream = Seated;
    type Service = S;
    type Future = BoxFuture<'static, io::Result<(Seated, S)>>;

    fn accept(&self, mut stream: TcpStream, service: S) -> Self::Future {
        let seats = Arc::clone(&self.seats);
        Box::pin(async move {
            let seat = timeout(SEAT_TIME, seats.acquire_owned()).await?.map_err(io::Error::other)?;
            stream.set_nodelay(true)?;
            let mut first = [0];
            timeout(HELLO_TIME, stream.peek(&mut first)).await??;
            let [first] = first;
            if first != TLS_HANDSHAKE {
                let _ = timeout(HELLO_TIME, turn_away(&mut stream)).await;
                return Err(io::Error::new(io::ErrorKind::InvalidData, "no TLS"));
            }
            Ok((Seated { stream, _seat: seat }, service))
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

/// A connection that has a seat until it ends.
#[derive(Debug)]
struct Seated {
    stream: TcpStream,
    _seat: OwnedSemaphorePermit,
}

impl AsyncRead for Seated {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Seated {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
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

#[cfg(test)]
mod tests;
