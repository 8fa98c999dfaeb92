//! A registry of one test, as faulty as the test wants it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use super::image::{TestImage, digest};

#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) kind: &'static str,
    pub(crate) body: Arc<Vec<u8>>,
    /// The connection breaks after that many bytes.
    pub(crate) break_after: Option<usize>,
    /// Instead of breaking then, the connection says nothing more.
    pub(crate) stall: bool,
}

impl Answer {
    pub(crate) fn of(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            kind: "application/octet-stream",
            body: Arc::new(body.into()),
            break_after: None,
            stall: false,
        }
    }
}

/// Looks at a path and its right answer, and may give another.
pub(crate) type Meddler = Arc<dyn Fn(&str, usize, Answer) -> Answer + Send + Sync>;

#[derive(Clone)]
pub(crate) struct Registry {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Registry {
    /// Serves the image as `repository:tag`, through an index.
    pub(crate) async fn serve(
        repository: &str,
        tag: &str,
        image: &TestImage,
        meddler: Option<Meddler>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registry = Self { address: listener.local_addr().unwrap(), requests: Arc::default() };
        let mut answers = BTreeMap::from([("/v2/".to_owned(), Answer::of(200, "{}"))]);
        for (digest, bytes) in image.blobs() {
            answers.insert(format!("/v2/{repository}/blobs/{digest}"), Answer::of(200, bytes));
        }
        let index =
            Answer { kind: "application/vnd.oci.image.index.v1+json", ..Answer::of(200, image.index()) };
        let manifest = Answer {
            kind: "application/vnd.oci.image.manifest.v1+json",
            ..Answer::of(200, image.manifest())
        };
        answers.insert(format!("/v2/{repository}/manifests/{}", digest(&manifest.body)), manifest);
        answers.insert(format!("/v2/{repository}/manifests/{}", digest(&index.body)), index.clone());
        answers.insert(format!("/v2/{repository}/manifests/{tag}"), index);
        let (answers, requests) = (Arc::new(answers), registry.requests.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, answers.clone(), requests.clone(), meddler.clone()));
            }
        });
        registry
    }

    /// Paths that were asked for, in their order.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn converse(
    stream: TcpStream,
    answers: Arc<BTreeMap<String, Answer>>,
    requests: Arc<Mutex<Vec<String>>>,
    meddler: Option<Meddler>,
) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut request = String::new();
        if stream.read_line(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut header = String::new();
        while header != "\r\n" {
            header.clear();
            if stream.read_line(&mut header).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let attempt = {
            let mut requests = requests.lock().unwrap();
            requests.push(path.clone());
            requests.iter().filter(|known| **known == path).count()
        };
        let right = answers.get(&path).cloned().unwrap_or_else(|| Answer::of(404, "{}"));
        let answer = match &meddler {
            Some(meddler) => meddler(&path, attempt, right),
            None => right,
        };
        let head = format!(
            "HTTP/1.1 {} X\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n",
            answer.status,
            answer.kind,
            answer.body.len()
        );
        let sent = answer.break_after.map_or(&answer.body[..], |length| &answer.body[..length]);
        let written = async {
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(sent).await?;
            stream.flush().await
        };
        let written = written.await;
        if answer.stall {
            std::future::pending::<()>().await;
        }
        if written.is_err() || answer.break_after.is_some() {
            return;
        }
    }
}
