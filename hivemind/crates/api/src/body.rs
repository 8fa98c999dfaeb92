//! Bodies of requests.

use std::{io, time::Duration};

use axum::body::{Body, HttpBody as _};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};

use crate::{fault::Fault, request::too_large};

/// The largest body, save for archives of images: 1 MiB, what the store takes as one value.
pub(crate) const BODY_BYTES_MAX: usize = 1 << 20;

/// The largest body with several objects in it: 4 MiB, which many files of manifests come to as JSON.
pub(crate) const OBJECTS_BYTES_MAX: usize = 4 << 20;

/// How long a body may take to arrive.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads a body of at most `bytes_max`.
pub(crate) async fn read_whole(body: Body, bytes_max: usize) -> Result<Bytes, Fault> {
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large(bytes_max));
    }
    let mut stream = body.into_data_stream();
    let mut whole = BytesMut::new();
    while let Some(piece) = stream.next().await {
        let piece = piece
            .map_err(|error| Fault::malformed(format!("the body broke off: {error}"), "send it again"))?;
        if whole.len() + piece.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

/// A body of any size, as it arrives.
pub(crate) fn pieces(body: Body) -> BoxStream<'static, io::Result<Bytes>> {
    body.into_data_stream().map_err(io::Error::other).boxed()
}
