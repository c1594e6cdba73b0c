//! The admission webhook: reviews in, answers out.
//!
//! Enters: the body of a review, in bounded size and time. Leaves: an answer that the API server can use, and for a
//! finding a `Decision` for whoever writes Events and counts. No await between reading the world and the answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine as _;
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::world::World;
use crate::core::namespace::NamespaceFacts;
use crate::core::refusal::Refusals;
use crate::core::selector::Labels;
use crate::core::verdict::Verdict;
use crate::k8s::answer;
use crate::k8s::envelope::Envelope;
use crate::k8s::json_patch;
use crate::k8s::question::Inquiry;

/// What the API server sends at most, and some more.
const BODY_LIMIT: usize = 7 << 20;
/// A body that has not come by then never will: the API server itself waits 30 s at the most.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Kept back of the API server's deadline for the decision and the way back.
const RESERVE: Duration = Duration::from_millis(500);
const DEFAULT_BUDGET: Duration = Duration::from_secs(2);

/// A finding that is to be told: in Events and metrics.
#[derive(Clone, Debug)]
pub struct Decision {
    pub inquiry: Inquiry,
    pub api_version: String,
    pub kind: String,
    pub verdict: Verdict,
}

/// Where decisions go; it never blocks.
pub trait Sink: Send + Sync + 'static {
    /// Of each review.
    fn reviewed(&self, verdict: &Verdict, took: Duration);
    /// Of each review with a finding that was no dry run.
    fn decided(&self, decision: Decision);
}

/// Looks a namespace up that the watch has not brought yet; `None`: it could not be had.
pub trait NamespaceLookup: Send + Sync + 'static {
    fn labels<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Option<Labels>>;
}

/// All that a review needs.
pub struct Webhook<R> {
    pub world: Arc<World<R>>,
    pub own_namespace: String,
    pub lookup: Box<dyn NamespaceLookup>,
    pub sink: Box<dyn Sink>,
}

impl<R> std::fmt::Debug for Webhook<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("own_namespace", &self.own_namespace).finish_non_exhaustive()
    }
}

/// The API server tells its own deadline in the query, in whole seconds.
#[derive(Debug, Default, Deserialize)]
struct Deadline {
    timeout: Option<String>,
}

impl Deadline {
    fn budget(&self) -> Duration {
        let seconds = self.timeout.as_deref().and_then(|text| text.strip_suffix('s')?.parse().ok());
        seconds.map_or(DEFAULT_BUDGET, Duration::from_secs).saturating_sub(RESERVE).min(DEFAULT_BUDGET)
    }
}

pub fn router<R: Refusals + Default + Send + Sync + 'static>(webhook: Arc<Webhook<R>>) -> Router {
    Router::new()
        .route("/validate", post(validate::<R>))
        .route("/mutate", post(mutate::<R>))
        .fallback(async || (StatusCode::NOT_FOUND, "post an AdmissionReview to /validate or /mutate\n"))
        .with_state(webhook)
}

async fn read(body: Body) -> Result<axum::body::Bytes, Response> {
    match tokio::time::timeout(BODY_TIME, axum::body::to_bytes(body, BODY_LIMIT)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => {
            let text = format!("the body cannot be read, or is larger than {BODY_LIMIT} bytes: {error}\n");
            Err((StatusCode::PAYLOAD_TOO_LARGE, text).into_response())
        }
        Err(_) => {
            let text = format!("the body did not come within {} s\n", BODY_TIME.as_secs());
            Err((StatusCode::REQUEST_TIMEOUT, text).into_response())
        }
    }
}

fn send(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

fn parse(body: &[u8]) -> Result<Envelope<'_>, Response> {
    Envelope::parse(body).map_err(|bad| match answer::broken(&bad) {
        Some(answer) => send(&answer),
        None => (StatusCode::BAD_REQUEST, format!("{bad}\n")).into_response(),
    })
}

/// The inquiry of a review, or the answer that none is needed or none can be made.
fn inquire(envelope: &Envelope<'_>, own_namespace: &str) -> Result<Inquiry, Response> {
    match envelope.submitted().inquire(own_namespace) {
        Ok(Ok(inquiry)) => Ok(inquiry),
        Ok(Err(_exempt)) => Err(send(&answer::allowed(envelope))),
        Err(error) => {
            let why = format!("the {} cannot be read: {error}", envelope.kind);
            Err(send(&answer::unreadable(crate::k8s::envelope::VERSION, &envelope.uid, &why)))
        }
    }
}

impl<R: Refusals + Default + Send + Sync + 'static> Webhook<R> {
    async fn namespace(&self, name: &str, budget: Duration) -> NamespaceFacts {
        let known = self.world.namespace(name);
        if known.labels.is_some() {
            return known;
        }
        let labels = tokio::time::timeout(budget, self.lookup.labels(name)).await.ok().flatten();
        NamespaceFacts { labels, ..known }
    }
}

async fn validate<R: Refusals + Default + Send + Sync + 'static>(
    State(webhook): State<Arc<Webhook<R>>>,
    Query(deadline): Query<Deadline>,
    body: Body,
) -> Response {
    let body = match read(body).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let start = Instant::now();
    let asked = parse(&body).and_then(|envelope| Ok((inquire(&envelope, &webhook.own_namespace)?, envelope)));
    let (inquiry, envelope) = match asked {
        Ok(asked) => asked,
        Err(answer) => return answer,
    };
    let namespace = webhook.namespace(&inquiry.pod.namespace, deadline.budget()).await;
    let verdict = webhook.world.decide(&inquiry.question(&namespace), Timestamp::now());
    webhook.sink.reviewed(&verdict, start.elapsed());
    let answer = answer::verdict(&envelope, &verdict);
    if !envelope.dry_run && !verdict.findings.is_empty() {
        let (api_version, kind) = (envelope.api_version(), envelope.kind.clone().into_owned());
        webhook.sink.decided(Decision { inquiry, api_version, kind, verdict });
    }
    send(&answer)
}

async fn mutate<R: Refusals + Default + Send + Sync + 'static>(
    State(webhook): State<Arc<Webhook<R>>>,
    Query(deadline): Query<Deadline>,
    body: Body,
) -> Response {
    let body = match read(body).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let asked = parse(&body).and_then(|envelope| Ok((inquire(&envelope, &webhook.own_namespace)?, envelope)));
    let (inquiry, envelope) = match asked {
        Ok(asked) => asked,
        Err(answer) => return answer,
    };
    let namespace = webhook.namespace(&inquiry.pod.namespace, deadline.budget()).await;
    let patch = webhook.world.rescue(&inquiry.question(&namespace), Timestamp::now()).and_then(|rescued| {
        let pod: Value = serde_json::from_str(envelope.object?.get()).ok()?;
        serde_json::to_vec(&json_patch::patch(&pod, &rescued)?).ok()
    });
    send(&match patch {
        Some(patch) => answer::patched(&envelope, &base64::engine::general_purpose::STANDARD.encode(patch)),
        None => answer::allowed(&envelope),
    })
}
