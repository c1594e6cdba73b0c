//! Bodies of reviews, read in bounded memory and time.
//!
//! Enters: a request. Leaves: its bytes, or what to tell the caller. Small bodies, the usual ones, are part of what a
//! connection costs and never wait. All larger ones together stay within a budget, however many connections there are:
//! room for the whole of a body is taken before more of it is read, so that no two readers can wait for each other with
//! half a body each. Who has announced a large body and sends nothing holds no room; who sends it slowly, not for long.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes, HttpBody as _};
use axum::http::{HeaderMap, StatusCode, header};
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::Refusal;
use crate::shell::door::Turn;

/// What an API server sends at most is 3 MiB of object, twice on UPDATE, and the envelope.
pub const LIMIT: usize = 7 << 20;
/// Of what is refused for its size, or for want of room, so much is still taken off the wire: a client that is cut off while it writes sees a
/// broken connection in place of the sentence that says why.
const DRAINED: usize = 64 << 20;
/// Up to that a body needs no room of the budget: the connections are counted, so these are too.
const SMALL: usize = 32 << 10;
/// For all larger bodies at a time.
const BUDGET: usize = 24 << 20;
/// A body that has room comes within that, be it 7 MiB over 30 Mbit/s: others may be waiting for the room.
const ROOM_TIME: Duration = Duration::from_secs(2);
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
    pub async fn read(&self, headers: &HeaderMap, body: Body, within: Duration, turn: &Turn) -> Result<Held, Refusal> {
        expect_json(headers)?;
        let announced = body.size_hint().exact().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        let until = Instant::now() + within;
        let mut pieces = body.into_data_stream();
        if announced.is_some_and(|length| length > LIMIT) {
            return timeout_at(until, too_large(&mut pieces)).await.map_or_else(|_| Err(late(within)), Err);
        }
        let mut bytes = Vec::new();
        let mut room = None;
        let (mut deadline, mut allowed) = (until, within);
        loop {
            let Ok(piece) = timeout_at(deadline, pieces.next()).await else { return Err(late(allowed)) };
            let Some(piece) = piece else { break };
            let piece = piece.map_err(broken_off)?;
            let so_far = bytes.len() + piece.len();
            if so_far > LIMIT {
                drop((bytes, piece, room));
                return timeout_at(until, too_large(&mut pieces)).await.map_or_else(|_| Err(late(within)), Err);
            }
            if announced == Some(piece.len()) && piece.len() <= SMALL {
                // The usual pod comes in one piece, and is not copied.
                return Ok(Held { bytes: piece, _room: None });
            }
            if room.is_none() && announced.unwrap_or(so_far) > SMALL {
                let whole = announced.unwrap_or(LIMIT);
                let Ok(reserved) = timeout_at(until - within / 4, self.reserve(whole, turn)).await else {
                    drop((bytes, piece));
                    let _ = timeout_at(until - within / 8, drain(&mut pieces)).await;
                    return Err(busy());
                };
                room = Some(reserved?);
                let granted = Instant::now() + ROOM_TIME;
                if granted < until {
                    (deadline, allowed) = (granted, ROOM_TIME);
                }
                // At once, for a vector that grows holds its old and its new self at a time.
                bytes.reserve_exact(whole.saturating_sub(bytes.len()));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(Held { bytes: bytes.into(), _room: room })
    }

    async fn reserve(&self, bytes: usize, turn: &Turn) -> Result<OwnedSemaphorePermit, Refusal> {
        let _ours = turn.ours();
        let units = u32::try_from(bytes.div_ceil(UNIT).max(1)).map_err(|_| busy())?;
        // It is never closed.
        Arc::clone(&self.room).acquire_many_owned(units).await.map_err(|_| busy())
    }
}

fn busy() -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many large reviews at a time: try again".to_owned())
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

async fn too_large(pieces: &mut BodyDataStream) -> Refusal {
    drain(pieces).await;
    let text = format!("the body is larger than the {} MiB that a review can need", LIMIT >> 20);
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, text)
}

async fn drain(pieces: &mut BodyDataStream) {
    let mut drained = 0_usize;
    while drained < DRAINED
        && let Some(Ok(piece)) = pieces.next().await
    {
        drained += piece.len();
    }
}

fn late(allowed: Duration) -> Refusal {
    let text = format!("the body did not arrive within {:.1} s", allowed.as_secs_f64());
    Refusal::new(StatusCode::REQUEST_TIMEOUT, text)
}

fn broken_off(error: axum::Error) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, format!("the body broke off: {error}"))
}
