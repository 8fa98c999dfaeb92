//! containerd's content store: blobs in, in pieces, and small documents out.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use containerd_client::services::v1::{
    AbortRequest, Info, ReadContentRequest, UpdateRequest, WriteAction, WriteContentRequest,
    WriteContentResponse,
};
use futures::{Stream, StreamExt};
use prost_types::FieldMask;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use super::document::DOCUMENT_BYTES_MAX;
use crate::{
    Error,
    containerd::{CALL_LIMIT, Containerd, lease::Lease, within},
};

/// A blob is written in pieces of this size: the most of it that is ever in memory.
const PIECE_BYTES: usize = 1 << 20;

/// What a blob must turn out to be.
#[derive(Clone, Copy)]
pub(crate) struct Expected<'a> {
    /// `None` accepts any content of that size, and hashes it.
    pub(crate) digest: Option<&'a str>,
    pub(crate) size: u64,
}

/// Why a blob was not stored. The partial blob is removed in each case.
pub(crate) enum WriteError<E> {
    /// Where the bytes came from failed.
    Source(E),
    /// The bytes are not what was expected.
    Mismatch(String),
    Containerd(Error),
}

impl<E> From<Error> for WriteError<E> {
    fn from(error: Error) -> Self {
        match error {
            Error::Call { status, .. } if status.code() == Code::FailedPrecondition => {
                Self::Mismatch(status.message().to_owned())
            }
            other => Self::Containerd(other),
        }
    }
}

/// Stores the bytes that `open` yields, unless the store has the blob: then `open` is not called. `progress` is
/// told the number of bytes of each piece once it is stored. Returns the blob's digest.
pub(crate) async fn write<S, E>(
    containerd: &Containerd,
    lease: &Lease,
    expected: Expected<'_>,
    labels: HashMap<String, String>,
    open: impl Future<Output = Result<S, E>>,
    mut progress: impl FnMut(u64),
) -> Result<String, WriteError<E>>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    let name = expected.digest.unwrap_or("unnamed");
    let reference = format!("{}-{:08x}-{name}", lease.id(), rand::random::<u32>());
    let mut ingest = match (Ingest::begin(containerd, lease, reference, expected).await, expected.digest) {
        (Ok(ingest), _) => ingest,
        (Err(error), Some(digest)) if error.is_already_exists() => {
            progress(expected.size);
            merge_labels(containerd, lease, digest, labels).await?;
            return Ok(digest.to_owned());
        }
        (Err(error), _) => return Err(error.into()),
    };
    let filled = async {
        let source = open.await.map_err(WriteError::Source)?;
        fill(&mut ingest, source, expected, &mut progress).await
    };
    let digest = match filled.await {
        Ok(digest) => digest,
        Err(error) => {
            ingest.abort(containerd, lease).await;
            return Err(error);
        }
    };
    match ingest.commit(&digest, expected.size, labels.clone()).await {
        Ok(()) => Ok(digest),
        Err(error) => {
            ingest.abort(containerd, lease).await;
            if !error.is_already_exists() {
                return Err(error.into());
            }
            merge_labels(containerd, lease, &digest, labels).await?;
            Ok(digest)
        }
    }
}

/// Stores bytes that are in memory.
pub(crate) async fn write_bytes(
    containerd: &Containerd,
    lease: &Lease,
    bytes: Bytes,
    labels: HashMap<String, String>,
) -> Result<String, Error> {
    let digest = super::document::digest_of(&bytes);
    let expected = Expected { digest: Some(&digest), size: bytes.len() as u64 };
    let open = std::future::ready(Ok::<_, std::convert::Infallible>(futures::stream::iter([Ok(bytes)])));
    match write(containerd, lease, expected, labels, open, |_| ()).await {
        Ok(digest) => Ok(digest),
        Err(WriteError::Containerd(error)) => Err(error),
        Err(WriteError::Source(never)) => match never {},
        Err(WriteError::Mismatch(reason)) => Err(Error::InvalidSpec { reason }),
    }
}

/// Reads a whole document.
///
/// # Errors
/// Not found, or [`Error::InvalidSpec`] for a blob beyond [`DOCUMENT_BYTES_MAX`].
pub(crate) async fn read(containerd: &Containerd, digest: &str) -> Result<Vec<u8>, Error> {
    let request = containerd.request(ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 });
    let mut pieces = within("Content.Read", CALL_LIMIT, containerd.content().read(request)).await?;
    let mut document = Vec::new();
    while let Some(piece) =
        pieces.message().await.map_err(|status| Error::from_status("Content.Read", status))?
    {
        document.extend_from_slice(&piece.data);
        if document.len() as u64 > DOCUMENT_BYTES_MAX {
            return Err(Error::InvalidSpec { reason: format!("document {digest} is too large") });
        }
    }
    Ok(document)
}

async fn fill<S, E>(
    ingest: &mut Ingest,
    mut source: S,
    expected: Expected<'_>,
    progress: &mut impl FnMut(u64),
) -> Result<String, WriteError<E>>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    let size = expected.size;
    let mut piece = BytesMut::new();
    let mut received = 0;
    // A known digest is verified by containerd.
    let mut hash = expected.digest.is_none().then(Sha256::new);
    while let Some(chunk) = source.next().await {
        let mut chunk = chunk.map_err(WriteError::Source)?;
        received += chunk.len() as u64;
        if let Some(hash) = &mut hash {
            hash.update(&chunk);
        }
        if received > size {
            return Err(WriteError::Mismatch(format!("more than the {size} bytes that were announced")));
        }
        while !chunk.is_empty() {
            let room = PIECE_BYTES - piece.len();
            piece.extend_from_slice(&chunk.split_to(room.min(chunk.len())));
            if piece.len() == PIECE_BYTES {
                ingest.append(piece.split().freeze()).await?;
                progress(PIECE_BYTES as u64);
            }
        }
    }
    if received < size {
        return Err(WriteError::Mismatch(format!("{received} bytes instead of {size}")));
    }
    let rest = piece.len() as u64;
    if rest > 0 {
        ingest.append(piece.freeze()).await?;
        progress(rest);
    }
    Ok(match (hash, expected.digest) {
        (Some(hash), _) => format!("sha256:{}", hex::encode(hash.finalize())),
        (None, digest) => digest.unwrap_or_default().to_owned(),
    })
}

/// A blob on its way in: a stream of requests, each answered before the next is sent, so that no more than a piece
/// is under way.
struct Ingest {
    reference: String,
    offset: u64,
    requests: mpsc::Sender<WriteContentRequest>,
    answers: Streaming<WriteContentResponse>,
}

impl Ingest {
    async fn begin(
        containerd: &Containerd,
        lease: &Lease,
        reference: String,
        expected: Expected<'_>,
    ) -> Result<Self, Error> {
        let (requests, queue) = mpsc::channel(1);
        // containerd answers "already exists" to this when it has the blob, and lets the lease hold it.
        let first = WriteContentRequest {
            action: WriteAction::Stat.into(),
            r#ref: reference.clone(),
            total: signed(expected.size),
            expected: expected.digest.unwrap_or_default().to_owned(),
            ..Default::default()
        };
        requests.try_send(first).expect("a new queue has room for one");
        let stream = containerd.leased(ReceiverStream::new(queue), lease);
        let answers = within("Content.Write", CALL_LIMIT, containerd.content().write(stream)).await?;
        let mut ingest = Self { reference, offset: 0, requests, answers };
        ingest.answer().await?;
        Ok(ingest)
    }

    async fn append(&mut self, piece: Bytes) -> Result<(), Error> {
        let length = piece.len() as u64;
        let request = WriteContentRequest {
            action: WriteAction::Write.into(),
            r#ref: self.reference.clone(),
            offset: signed(self.offset),
            data: piece.into(),
            ..Default::default()
        };
        self.send(request).await?;
        self.offset += length;
        Ok(())
    }

    async fn commit(
        &mut self,
        digest: &str,
        size: u64,
        labels: HashMap<String, String>,
    ) -> Result<(), Error> {
        let request = WriteContentRequest {
            action: WriteAction::Commit.into(),
            r#ref: self.reference.clone(),
            total: signed(size),
            expected: digest.to_owned(),
            offset: signed(self.offset),
            labels,
            ..Default::default()
        };
        self.send(request).await
    }

    async fn send(&mut self, request: WriteContentRequest) -> Result<(), Error> {
        // A closed queue means that the call has ended: its answer says why.
        let _ = self.requests.send(request).await;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<(), Error> {
        let call = "Content.Write";
        match tokio::time::timeout(CALL_LIMIT, self.answers.message()).await {
            Ok(Ok(Some(_))) => Ok(()),
            Ok(Ok(None)) => {
                Err(Error::from_status(call, tonic::Status::unavailable("the stream ended early")))
            }
            Ok(Err(status)) => Err(Error::from_status(call, status)),
            Err(_) => Err(Error::TimedOut { call, after: CALL_LIMIT }),
        }
    }

    /// Removes the partial blob; should that fail, it goes with the lease.
    async fn abort(self, containerd: &Containerd, lease: &Lease) {
        let Self { reference, requests, answers, .. } = self;
        // containerd locks a blob until its stream has ended.
        drop((requests, answers));
        let request = containerd.leased(AbortRequest { r#ref: reference }, lease);
        if let Err(error) = within("Content.Abort", CALL_LIMIT, containerd.content().abort(request)).await
            && !error.is_not_found()
        {
            tracing::debug!(%error, "A partial blob is left to its lease");
        }
    }
}

async fn merge_labels(
    containerd: &Containerd,
    lease: &Lease,
    digest: &str,
    labels: HashMap<String, String>,
) -> Result<(), Error> {
    if labels.is_empty() {
        return Ok(());
    }
    let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
    let info = Some(Info { digest: digest.to_owned(), labels, ..Default::default() });
    let request = UpdateRequest { info, update_mask: Some(FieldMask { paths }) };
    within("Content.Update", CALL_LIMIT, containerd.content().update(containerd.leased(request, lease)))
        .await?;
    Ok(())
}

fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
