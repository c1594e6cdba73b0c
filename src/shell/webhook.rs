//! The admission webhook: reviews in, answers out.
//!
//! Enters: the body of a review, in bounded size and time. Leaves: an answer that the API server can use, and for a
//! finding a `Decision` for whoever writes Events and counts. No await between reading the world and the answer.
//!
//! Whatever is sent, the caller gets a sentence: in a review if the uid could be read, else as text with an HTTP status.

mod body;
mod deadline;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::Value;

pub use self::body::{Bodies, LIMIT};
use super::world::World;
use crate::core::namespace::NamespaceFacts;
use crate::core::refusal::Refusals;
use crate::core::rescue::Rescued;
use crate::core::selector::Labels;
use crate::core::verdict::Verdict;
use crate::k8s::answer::Answer;
use crate::k8s::envelope::Envelope;
use crate::k8s::json_patch;
use crate::k8s::question::{Exemption, Inquiry};

/// A body that has not come by then never will, whatever time-out the caller gives itself.
pub const BODY_TIME: Duration = Duration::from_secs(10);
/// Kept back of the API server's deadline for the decision and the way back.
const RESERVE: Duration = Duration::from_millis(500);
/// For the look-up of a namespace: one small GET. Beyond it the answer is made without its labels.
const LOOKUP_TIME: Duration = Duration::from_secs(2);

/// A finding that is to be told: in Events and metrics.
#[derive(Clone, Debug)]
pub struct Decision {
    pub inquiry: Inquiry,
    pub api_version: String,
    pub kind: String,
    pub verdict: Verdict,
}

/// A pod that was changed, which is to be told.
#[derive(Clone, Copy, Debug)]
pub struct Rescue<'a> {
    pub inquiry: &'a Inquiry,
    pub api_version: &'a str,
    pub kind: &'a str,
    pub rescued: &'a Rescued,
    /// All of which ask for it.
    pub policies: &'a [Arc<str>],
}

/// Where decisions go; it never blocks.
pub trait Sink: Send + Sync + 'static {
    /// Of each review.
    fn reviewed(&self, verdict: &Verdict, took: Duration);
    /// Of each review with a finding that was no dry run.
    fn decided(&self, decision: Decision);
    /// Of each pod that was changed and is no dry run.
    fn rescued(&self, rescue: Rescue<'_>);
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

/// What is said to a caller that cannot be answered with a review.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    status: StatusCode,
    text: String,
}

impl Refusal {
    pub fn new(status: StatusCode, text: String) -> Self {
        Self { status, text }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self { status, text } = self;
        tracing::debug!(status = status.as_u16(), message = text, "request refused");
        let mut response = (status, format!("{text}\n")).into_response();
        let mut set = |name: HeaderName, value: &'static str| {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        };
        match status {
            // Half a body may still be on its way: the connection is of no more use.
            StatusCode::REQUEST_TIMEOUT => set(header::CONNECTION, "close"),
            StatusCode::SERVICE_UNAVAILABLE => set(header::RETRY_AFTER, "1"),
            StatusCode::METHOD_NOT_ALLOWED => set(header::ALLOW, "POST"),
            _ => {}
        }
        response
    }
}

/// The webhook with what all its requests share.
struct Desk<R> {
    webhook: Arc<Webhook<R>>,
    bodies: Bodies,
}

#[derive(Clone, Copy, Debug)]
enum Half {
    Validate,
    Mutate,
}

pub fn router<R: Refusals + Default + Send + Sync + 'static>(webhook: Arc<Webhook<R>>) -> Router {
    let desk = Arc::new(Desk { webhook, bodies: Bodies::default() });
    let validate = async |State(desk): State<Arc<Desk<R>>>, request: Request| desk.serve(Half::Validate, request).await;
    let mutate = async |State(desk): State<Arc<Desk<R>>>, request: Request| desk.serve(Half::Mutate, request).await;
    Router::new()
        .route("/validate", post(validate).fallback(wrong_method))
        .route("/mutate", post(mutate).fallback(wrong_method))
        .fallback(wrong_path)
        .with_state(desk)
}

async fn wrong_method(method: Method) -> Refusal {
    let shown: String = method.as_str().chars().take(20).collect();
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("{shown} is not answered here: POST an AdmissionReview"))
}

async fn wrong_path() -> Refusal {
    let text =
        "nothing is here: this is Pullguard's admission webhook, POST an AdmissionReview to /validate or /mutate";
    Refusal::new(StatusCode::NOT_FOUND, text.to_owned())
}

/// A defect of ours must not take a connection with it, and the API server gets a sentence for its `failurePolicy`.
/// Nothing is left half done: the world is only read.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Refusal> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| {
        tracing::error!("a review has met a defect of Pullguard: please report the panic message above");
        let text = "the review has met a defect of Pullguard; its log has more".to_owned();
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, text)
    })
}

fn send(answer: &Answer<'_>) -> Response {
    match serde_json::to_vec(answer) {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], Body::from(json)).into_response(),
        Err(error) => {
            let text = format!("the answer cannot be written: {error}");
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
        }
    }
}

/// A review that is to be judged, or the answer that it has already.
fn open<'a>(body: &'a [u8], own_namespace: &str) -> Result<(Envelope<'a>, Inquiry), Box<Response>> {
    let envelope = Envelope::parse(body).map_err(|bad| {
        Box::new(match Answer::bad_review(&bad) {
            Some(answer) => send(&answer),
            None => Refusal::new(StatusCode::BAD_REQUEST, bad.to_string()).into_response(),
        })
    })?;
    match envelope.submitted().inquire(own_namespace) {
        Ok(Ok(inquiry)) => Ok((envelope, inquiry)),
        Ok(Err(Exemption::OtherKind)) => Err(Box::new(send(&Answer::unknown_kind(&envelope)))),
        Ok(Err(
            Exemption::Namespace
            | Exemption::Operation
            | Exemption::Mirror
            | Exemption::Controlled
            | Exemption::ImagesUnchanged,
        )) => Err(Box::new(send(&Answer::allowed(&envelope)))),
        Err(error) => Err(Box::new(send(&Answer::bad_object(&envelope, &error)))),
    }
}

impl<R: Refusals + Default + Send + Sync + 'static> Desk<R> {
    async fn serve(&self, half: Half, request: Request) -> Response {
        self.answer(half, request).await.unwrap_or_else(|refusal| refusal.into_response())
    }

    async fn answer(&self, half: Half, request: Request) -> Result<Response, Refusal> {
        let arrived = Instant::now();
        let (head, body) = request.into_parts();
        let timeout = deadline::timeout(head.uri.query());
        let body = self.bodies.read(&head.headers, body, timeout.min(BODY_TIME)).await?;
        let webhook = &*self.webhook;
        let start = Instant::now();
        let (envelope, inquiry) = match guarded(|| open(&body, &webhook.own_namespace))? {
            Ok(opened) => opened,
            Err(answered) => return Ok(*answered),
        };
        let left = timeout.saturating_sub(arrived.elapsed()).saturating_sub(RESERVE);
        let namespace = webhook.namespace(&inquiry.pod.namespace, left.min(LOOKUP_TIME)).await;
        guarded(|| match half {
            Half::Validate => webhook.validate(&envelope, inquiry, &namespace, start),
            Half::Mutate => webhook.mutate(&envelope, &inquiry, &namespace),
        })
    }
}

impl<R: Refusals + Default + Send + Sync + 'static> Webhook<R> {
    /// From the cache, else by one request within the budget.
    async fn namespace(&self, name: &str, budget: Duration) -> NamespaceFacts {
        let known = self.world.namespace(name);
        if known.labels.is_some() {
            return known;
        }
        let labels = tokio::time::timeout(budget, self.lookup.labels(name)).await.ok().flatten();
        NamespaceFacts { labels, ..known }
    }

    fn validate(
        &self,
        envelope: &Envelope<'_>,
        inquiry: Inquiry,
        namespace: &NamespaceFacts,
        start: Instant,
    ) -> Response {
        let verdict = self.world.decide(&inquiry.question(namespace), Timestamp::now());
        let response = send(&Answer::judged(envelope, &inquiry, &verdict));
        self.sink.reviewed(&verdict, start.elapsed());
        if !envelope.dry_run && !verdict.findings.is_empty() {
            let (api_version, kind) = (envelope.api_version(), envelope.kind.clone().into_owned());
            self.sink.decided(Decision { inquiry, api_version, kind, verdict });
        }
        response
    }

    fn mutate(&self, envelope: &Envelope<'_>, inquiry: &Inquiry, namespace: &NamespaceFacts) -> Response {
        let rescued = self.world.rescue(&inquiry.question(namespace), Timestamp::now());
        let patched = rescued.and_then(|(rescued, policies)| {
            let pod: Value = serde_json::from_str(envelope.object?.get()).ok()?;
            let patch = serde_json::to_vec(&json_patch::patch(&pod, &rescued)?).ok()?;
            Some((rescued, policies, patch))
        });
        let Some((rescued, policies, patch)) = patched else { return send(&Answer::allowed(envelope)) };
        if !envelope.dry_run {
            let (api_version, kind) = (&envelope.api_version(), &envelope.kind);
            self.sink.rescued(Rescue { inquiry, api_version, kind, rescued: &rescued, policies: &policies });
        }
        send(&Answer::rescued(envelope, inquiry, &rescued, &policies, patch))
    }
}
