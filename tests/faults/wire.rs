//! The wire between one replica and the API server: every request is seen here, and may be lost, held or answered otherwise.
//!
//! Enters: a rule for each request. Leaves: a client that obeys it, and the record of what passed.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use axum::body::{Body as Answer, Bytes, HttpBody};
use axum::http::{Request, Response};
use futures::StreamExt as _;
use futures::future::{BoxFuture, pending};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tokio::sync::watch;
use tower::layer::layer_fn;
use tower::{BoxError, Service};

/// One request, and what became of it.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: String,
    pub path: String,
    /// `None`: not sent, or no answer yet.
    pub status: Option<u16>,
}

impl Call {
    /// It changes something that is not only a replica's own: no lease, no policy status.
    pub fn is_write(&self) -> bool {
        self.method != "GET" && !self.path.contains("/leases") && !self.path.contains("/nodeimagepolicies")
    }

    pub fn succeeded(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }

    pub fn fails_job(&self) -> bool {
        self.method == "PATCH" && self.path.contains("/jobs/") && self.path.ends_with("/status")
    }

    pub fn deletes_pod(&self) -> bool {
        self.method == "DELETE" && self.path.contains("/pods/")
    }
}

/// What becomes of a request.
pub enum Fate {
    Pass,
    /// It never arrives, and nothing comes back.
    Lost,
    /// It arrives, and the answer is lost.
    Unheard,
    /// It arrives when this is done.
    Held(BoxFuture<'static, ()>),
}

type Rule = Box<dyn FnMut(&Call) -> Fate + Send>;

#[derive(Clone)]
pub struct Wire {
    rule: Arc<Mutex<Rule>>,
    calls: Arc<Mutex<Vec<Call>>>,
    asleep: watch::Sender<bool>,
}

/// As long as it is held, nothing passes; what streams were open are cut.
pub struct Sleep(watch::Sender<bool>);

impl Drop for Sleep {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

impl Default for Wire {
    fn default() -> Self {
        Self::new(|_| Fate::Pass)
    }
}

impl Wire {
    pub fn new(rule: impl FnMut(&Call) -> Fate + Send + 'static) -> Self {
        Self { rule: Arc::new(Mutex::new(Box::new(rule))), calls: Arc::default(), asleep: watch::Sender::new(false) }
    }

    /// Cuts every open watch, and lets no request through until the answer is dropped.
    pub fn sleep(&self) -> Sleep {
        self.asleep.send_replace(true);
        Sleep(self.asleep.clone())
    }

    /// What was asked since the beginning.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn begin(&self, call: Call) -> (usize, Fate) {
        let number = {
            let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
            calls.push(call.clone());
            calls.len() - 1
        };
        // Whoever is told of it by the rule finds it on record.
        (number, (self.rule.lock().unwrap_or_else(PoisonError::into_inner))(&call))
    }

    fn answered(&self, number: usize, status: u16) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)[number].status = Some(status);
    }

    /// A client whose every request goes over this wire. It must not try again by itself, as the product's does not.
    pub fn client(&self, mut config: Config) -> Result<Client> {
        config.default_retry = false;
        let wire = self.clone();
        let layer = layer_fn(move |inner| On { wire: wire.clone(), inner });
        Ok(ClientBuilder::try_from(config)?.with_layer(&layer).build())
    }
}

struct On<S> {
    wire: Wire,
    inner: S,
}

impl<S, B> Service<Request<Body>> for On<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Answer>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Answer>, BoxError>>;

    fn poll_ready(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let call = Call { method: request.method().to_string(), path: request.uri().path().to_owned(), status: None };
        let (number, fate) = self.wire.begin(call);
        let (hold, heard) = match fate {
            Fate::Pass => (None, true),
            Fate::Lost => return Box::pin(pending()),
            Fate::Unheard => (None, false),
            Fate::Held(hold) => (Some(hold), true),
        };
        let (sent, wire) = (self.inner.call(request), self.wire.clone());
        Box::pin(async move {
            if let Some(hold) = hold {
                hold.await;
            }
            let mut asleep = wire.asleep.subscribe();
            drop(asleep.wait_for(|asleep| !*asleep).await);
            let response = sent.await?;
            wire.answered(number, response.status().as_u16());
            if !heard {
                return pending().await;
            }
            let cut = async move { drop(asleep.wait_for(|asleep| *asleep).await) };
            Ok(response.map(|body| Answer::from_stream(Answer::new(body).into_data_stream().take_until(Box::pin(cut)))))
        })
    }
}
