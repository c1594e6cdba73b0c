//! Bodies of reviews, read in bounded memory and time.
//!
//! Enters: a request. Leaves: its bytes, or what to tell the caller. All bodies together stay within a budget, however
//! many connections there are: room for the whole of a body is taken before the second piece of it is read, so that no two
//! readers can wait for each other with half a body each. Who has announced a body and sends nothing holds no room.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::http::{HeaderMap, StatusCode, header};
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::Refusal;

/// What an API server sends at most is 3 MiB of object, twice on UPDATE, and the envelope.
pub const LIMIT: usize = 7 << 20;
/// Of what is refused for its size so much is still taken off the wire: a client that is cut off while it writes sees a
/// broken connection in place of the sentence that says why.
const DRAINED: usize = 64 << 20;
/// For all bodies at a time.
const BUDGET: usize = 32 << 20;
/// One permit of the budget.
const UNIT: usize = 1 << 10;

/// The budget of bodies.
#[derive(Clone, Debug)]
pub struct Bodies {
    room: Arc<Semaphore>,
}

/// A body, and the room that it takes until it is dropped.
#[derive(Debug)]
pub struct Held {
    bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

impl std::ops::Deref for Held {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Default for Bodies {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(BUDGET / UNIT)) }
    }
}

impl Bodies {
    /// # Errors
    /// What to tell a caller whose body is no JSON, is too large, or does not come within the time given.
    pub async fn read(&self, headers: &HeaderMap, body: Body, within: Duration) -> Result<Held, Refusal> {
        expect_json(headers)?;
        let until = Instant::now() + within;
        match tokio::time::timeout_at(until, self.take(body, until)).await {
            Ok(taken) => taken,
            Err(_) => Err(Refusal::new(
                StatusCode::REQUEST_TIMEOUT,
                format!("the body did not arrive within {:.1} s", within.as_secs_f64()),
            )),
        }
    }

    async fn take(&self, body: Body, until: Instant) -> Result<Held, Refusal> {
        let announced = body.size_hint().exact().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        let mut pieces = body.into_data_stream();
        if announced.is_some_and(|length| length > LIMIT) {
            return Err(too_large(&mut pieces).await);
        }
        let Some(first) = pieces.next().await else { return Ok(Held { bytes: Bytes::new(), _room: None }) };
        let first = first.map_err(broken_off)?;
        let room = self.reserve(announced.unwrap_or(LIMIT), until).await?;
        let whole = announced.is_some_and(|length| length == first.len());
        if whole {
            // The usual pod comes in one piece, and is not copied.
            return Ok(Held { bytes: first, _room: Some(room) });
        }
        let mut bytes = Vec::with_capacity(announced.unwrap_or(first.len()).min(LIMIT));
        bytes.extend_from_slice(&first);
        drop(first);
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(broken_off)?;
            if bytes.len() + piece.len() > LIMIT {
                drop((bytes, room));
                return Err(too_large(&mut pieces).await);
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(Held { bytes: bytes.into(), _room: Some(room) })
    }

    async fn reserve(&self, bytes: usize, until: Instant) -> Result<OwnedSemaphorePermit, Refusal> {
        let busy = || {
            let text = "too many large reviews at a time: try again".to_owned();
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text)
        };
        let units = u32::try_from(bytes.div_ceil(UNIT).max(1)).map_err(|_| busy())?;
        let room = Arc::clone(&self.room).acquire_many_owned(units);
        match tokio::time::timeout_at(until, room).await {
            Ok(Ok(room)) => Ok(room),
            Ok(Err(_)) | Err(_) => Err(busy()),
        }
    }
}

/// The API server says so; a form or a YAML file would be a caller's mistake, and better told than guessed at.
fn expect_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(found) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let found = found.to_str().unwrap_or_default();
    let essence = found.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let shown: String = found.chars().take(80).collect();
    let text = format!("the body is announced as `{shown}`: post an AdmissionReview as application/json");
    Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text))
}

async fn too_large(pieces: &mut axum::body::BodyDataStream) -> Refusal {
    let mut drained = 0_usize;
    while drained < DRAINED
        && let Some(Ok(piece)) = pieces.next().await
    {
        drained += piece.len();
    }
    let text = format!("the body is larger than the {} MiB that a review can need", LIMIT >> 20);
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, text)
}

fn broken_off(error: axum::Error) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, format!("the body broke off: {error}"))
}
