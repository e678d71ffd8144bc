//! `kestrel serve`: weights as a page on which pictures are dropped, and as an address that programs ask.

mod classifier;
mod page;
mod query;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use hyper::{Method, StatusCode};

use self::classifier::Classifier;
use self::query::PredictQuery;
use crate::cli::ServeArgs;
use crate::device;
use crate::http::{Answer, Limits, Request, Server};

/// Runs the command, until it is stopped.
pub(crate) fn run(args: &ServeArgs) -> Result<()> {
    device::set_threads(args.threads)?;
    let device = args.device.open()?;
    let limits = Limits {
        max_body: (args.max_body as usize) << 20,
        timeout: Duration::from_secs(args.timeout.into()),
    };
    let classifier = Classifier::load(args, device).with_context(|| format!("loading {}", args.weights.display()))?;
    let page = page::page();
    let server = Server::bind(args.host, args.port)?.with_public_host(args.public_host.as_deref());
    server.announce()?;
    tracing::info!("Open it in a browser and drop a picture; POST /predict is for programs. Stop with Ctrl-C.");
    let shared = Arc::new((classifier, page));
    server.run(limits, move |request| {
        let shared = Arc::clone(&shared);
        async move { answer(request, &shared.0, &shared.1).await }
    })
}

async fn answer(request: Request, classifier: &Classifier, page: &str) -> Answer {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    match request.path() {
        "/" if reads => Answer::html(page.to_owned()),
        "/model" if reads => Answer::json(&classifier.about()),
        "/" | "/model" => request.refuse(Answer::method_not_allowed("GET")).await,
        "/predict" if *request.method() == Method::POST => {
            predict(request, classifier).await.unwrap_or_else(|refusal| refusal)
        }
        "/predict" => request.refuse(Answer::method_not_allowed("POST")).await,
        _ => {
            let names = Answer::not_found("there are only GET /, GET /model and POST /predict");
            request.refuse(names).await
        }
    }
}

async fn predict(request: Request, classifier: &Classifier) -> Result<Answer, Answer> {
    // A page of another site cannot send these types without asking first, which is refused.
    let is_image = |kind: &str| kind.starts_with("image/") || kind == "application/octet-stream";
    if !request.content_type().as_deref().is_some_and(is_image) {
        let sentence = "the body must be an image file, with the Content-Type image/* or application/octet-stream";
        let refusal = Answer::refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, sentence);
        return Err(request.refuse(refusal).await);
    }
    let query = match PredictQuery::parse(request.query(), classifier.about().classes) {
        Ok(query) => query,
        Err(sentence) => {
            let refusal = Answer::refusal(StatusCode::BAD_REQUEST, sentence);
            return Err(request.refuse(refusal).await);
        }
    };
    // Places are for those who have said all: who is slow to say it holds none.
    let body = request.body().await?;
    let Some(place) = classifier.place() else {
        let sentence = "as many requests as there is room for are being answered; try again in a second";
        return Err(Answer::busy(sentence));
    };
    let answer = classifier.predict(body, query).await;
    drop(place);
    answer
}
