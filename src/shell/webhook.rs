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
use tokio::sync::Semaphore;

pub use self::body::{Bodies, LIMIT};
use super::door::Turn;
use super::world::World;
use crate::core::namespace::NamespaceFacts;
use crate::core::refusal::Refusals;
use crate::core::rescue::Rescued;
use crate::core::selector::Labels;
use crate::core::verdict::Verdict;
use crate::k8s::answer::{Answer, PROBE};
use crate::k8s::envelope::Envelope;
use crate::k8s::json_patch;
use crate::k8s::question::{Decoded, Exemption, Inquiry};

/// A body that has not come by then never will, whatever time-out the caller gives itself.
pub const BODY_TIME: Duration = Duration::from_secs(10);
/// Kept back of the API server's deadline for the decision and the way back.
const RESERVE: Duration = Duration::from_millis(500);
/// For the look-up of a namespace: one small GET. Beyond it the answer is made without its labels.
const LOOKUP_TIME: Duration = Duration::from_secs(2);
/// At a time. Somebody who makes namespaces up must not make a flood of requests to the API server of it.
const LOOKUPS: usize = 16;

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
    /// Of each review that was no dry run: tools that compare (`kubectl diff`) would make the numbers lie.
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
    lookups: Semaphore,
}

#[derive(Clone, Copy, Debug)]
enum Half {
    Validate,
    Mutate,
}

pub fn router<R: Refusals + Default + Send + Sync + 'static>(webhook: Arc<Webhook<R>>) -> Router {
    let desk = Arc::new(Desk { webhook, bodies: Bodies::default(), lookups: Semaphore::new(LOOKUPS) });
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

/// A review whose object is to be judged, or the answer that it has already. Where it can be, the object is decoded on the
/// way; a patch is made of the pod as it was sent, so for it the pod is left as it is.
fn open<'a>(half: Half, body: &'a [u8], own_namespace: &str) -> Result<(Envelope<'a>, Option<Decoded>), Box<Response>> {
    let parsed = match half {
        Half::Validate => Envelope::parse_decoded(body),
        Half::Mutate => Envelope::parse(body).map(|envelope| (envelope, None)),
    };
    let (envelope, decoded) = parsed.map_err(|bad| {
        Box::new(match Answer::bad_review(&bad) {
            Some(answer) => send(&answer),
            None => Refusal::new(StatusCode::BAD_REQUEST, bad.to_string()).into_response(),
        })
    })?;
    match envelope.submitted().exemption(own_namespace) {
        Some(exemption) => Err(Box::new(exempt(&envelope, exemption))),
        None => Ok((envelope, decoded)),
    }
}

/// What is to be judged, or the answer that it has already.
fn inquire(envelope: &Envelope<'_>, decoded: Option<Decoded>, own_namespace: &str) -> Result<Inquiry, Box<Response>> {
    let submitted = envelope.submitted();
    let inquired = match decoded {
        Some(decoded) => Ok(submitted.inquire_decoded(own_namespace, decoded)),
        None => submitted.inquire(own_namespace),
    };
    match inquired {
        Ok(Ok(inquiry)) => Ok(inquiry),
        Ok(Err(exemption)) => Err(Box::new(exempt(envelope, exemption))),
        Err(error) => Err(Box::new(send(&Answer::bad_object(envelope, &error)))),
    }
}

fn is_name(text: &str) -> bool {
    (1..=63).contains(&text.len()) && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_alphanumeric())
}

fn exempt(envelope: &Envelope<'_>, exemption: Exemption) -> Response {
    match exemption {
        Exemption::OtherKind => send(&Answer::unknown_kind(envelope)),
        Exemption::Namespace
        | Exemption::Operation
        | Exemption::Mirror
        | Exemption::Controlled
        | Exemption::ImagesUnchanged => send(&Answer::allowed(envelope)),
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
        let turn: Turn = head.extensions.get().cloned().unwrap_or_default();
        let body = self.bodies.read(&head.headers, body, timeout.min(BODY_TIME), &turn).await?;
        let _ours = turn.ours();
        let webhook = &*self.webhook;
        let start = Instant::now();
        let (envelope, decoded) = match guarded(|| open(half, &body, &webhook.own_namespace))? {
            Ok(opened) => opened,
            Err(answered) => return Ok(*answered),
        };
        let known = webhook.world.namespace(&envelope.namespace);
        // An object decoded takes many times its text: nobody holds one across an await, so that there is but one for each
        // thread.
        let (namespace, decoded) = if known.labels.is_some() {
            (known, decoded)
        } else {
            drop(decoded);
            let left = timeout.saturating_sub(arrived.elapsed()).saturating_sub(RESERVE);
            let namespace = self.look_up(known, left.min(LOOKUP_TIME)).await;
            match guarded(|| open(half, &body, &webhook.own_namespace))? {
                Ok((_, decoded)) => (namespace, decoded),
                Err(answered) => return Ok(*answered),
            }
        };
        guarded(|| {
            let inquiry = match inquire(&envelope, decoded, &webhook.own_namespace) {
                Ok(inquiry) => inquiry,
                Err(answered) => return *answered,
            };
            match half {
                Half::Validate => webhook.validate(&envelope, inquiry, &namespace, start),
                Half::Mutate => webhook.mutate(&envelope, &inquiry, &namespace),
            }
        })
    }

    /// What the cache does not know of a namespace, by one request within the budget.
    async fn look_up(&self, known: NamespaceFacts, budget: Duration) -> NamespaceFacts {
        // What is no name of a namespace would be another path of the API.
        if !is_name(&known.name) {
            return known;
        }
        let labels = tokio::time::timeout(budget, async {
            let _turn = self.lookups.acquire().await.ok()?;
            self.webhook.lookup.labels(&known.name).await
        });
        let labels = labels.await.ok().flatten();
        NamespaceFacts { labels: labels.map(Arc::new), ..known }
    }
}

impl<R: Refusals + Default + Send + Sync + 'static> Webhook<R> {
    fn validate(
        &self,
        envelope: &Envelope<'_>,
        inquiry: Inquiry,
        namespace: &NamespaceFacts,
        start: Instant,
    ) -> Response {
        // A dry run creates nothing, so nothing slips by: no policy is needed to see that we are asked.
        if envelope.dry_run && inquiry.name == PROBE {
            return send(&Answer::probed(envelope));
        }
        let verdict = self.world.decide(&inquiry.question(namespace), self.world.now());
        let response = send(&Answer::judged(envelope, &inquiry, &verdict));
        if envelope.dry_run {
            return response;
        }
        self.sink.reviewed(&verdict, start.elapsed());
        if !verdict.findings.is_empty() {
            let (api_version, kind) = (envelope.api_version(), envelope.kind.clone().into_owned());
            self.sink.decided(Decision { inquiry, api_version, kind, verdict });
        }
        response
    }

    fn mutate(&self, envelope: &Envelope<'_>, inquiry: &Inquiry, namespace: &NamespaceFacts) -> Response {
        let rescued = self.world.rescue(&inquiry.question(namespace), &envelope.uid, self.world.now());
        let patched = rescued.and_then(|(rescued, policies)| {
            let pod = json_patch::outline(envelope.object?.get())?;
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
