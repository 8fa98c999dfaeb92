//! What happens to containers, told as it happens.
//!
//! containerd answers a subscription only with its first event, so that one cannot know when it began. Therefore the
//! subscriber publishes a marker of its own until it hears it: from then on nothing is missed, and it says so.

use std::time::Duration;

use containerd_client::{
    events::{TaskExit, TaskOom},
    services::v1::{PublishRequest, SubscribeRequest},
    types::Envelope,
};
use prost::Message;
use prost_types::Any;
use tokio::{sync::mpsc, task::JoinHandle};
use tonic::Streaming;

use super::ContainerId;
use crate::{
    Error, PrivateContainerd,
    containerd::{CALL_LIMIT, Containerd, private, within},
};

const QUEUE_EVENTS: usize = 256;
const MARKER_TOPIC: &str = "/hivemind/subscribed";
const MARKER_INTERVAL: Duration = Duration::from_millis(50);
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// From now on every end of a container is told. Read [`crate::Runtime::list`] now: what happened before is only
    /// there.
    Connected,
    /// A container's first process has ended.
    Exit {
        /// The container.
        id: ContainerId,
        /// Its pid on the host, while it ran.
        pid: u32,
        /// Its exit code; 128 and the signal's number where a signal killed it.
        code: u32,
    },
    /// The kernel killed a process of the container for want of memory. Where it was the first process, its end is
    /// told besides, in any order.
    Oom {
        /// The container.
        id: ContainerId,
    },
    /// containerd is gone, or events came faster than they were taken. Some may be missed until the next
    /// [`Event::Connected`].
    Disconnected,
}

/// A subscription. It reconnects by itself, starting the private containerd again where that one died, and ends when
/// it is dropped.
pub struct Events {
    events: mpsc::Receiver<Event>,
    watcher: JoinHandle<()>,
}

impl Events {
    /// The next event; `None` only if the executor is shutting down.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

/// How following the events came to its end.
enum Ended {
    /// Nobody listens.
    Unwanted,
    /// The stream broke, or never began.
    Lost(Error),
}

pub(crate) fn subscribe(
    containerd: Containerd,
    private: Option<PrivateContainerd>,
    collector: crate::logs::Logs,
) -> Events {
    let (send, events) = mpsc::channel(QUEUE_EVENTS);
    let watcher = tokio::spawn(async move {
        tokio::select! {
            () = watch(&containerd, private.as_ref(), &send) => {}
            // Whoever looks after containers also wants their output collected.
            _ = collector.watch() => {}
        }
    });
    Events { events, watcher }
}

async fn watch(containerd: &Containerd, private: Option<&PrivateContainerd>, events: &mpsc::Sender<Event>) {
    let mut backoff = BACKOFF_MIN;
    loop {
        let mut connected = false;
        let error = match follow(containerd, events, &mut connected).await {
            Ended::Unwanted => return,
            Ended::Lost(error) => error,
        };
        if connected {
            backoff = BACKOFF_MIN;
            tracing::warn!(%error, "Lost the event stream of containerd");
            if events.send(Event::Disconnected).await.is_err() {
                return;
            }
        }
        if let Some(private) = private
            && let Err(error) = private::start(private).await
        {
            tracing::warn!(%error, "The private containerd cannot be started again");
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

async fn follow(containerd: &Containerd, events: &mpsc::Sender<Event>, connected: &mut bool) -> Ended {
    let marker = format!("{:016x}", rand::random::<u64>());
    let mut stream = match open(containerd, &marker).await {
        Ok(stream) => stream,
        Err(error) => return Ended::Lost(error),
    };
    let call = "Events.Subscribe";
    let mut marking = tokio::time::interval(MARKER_INTERVAL);
    loop {
        let message = tokio::select! {
            message = stream.message() => message,
            // Until the marker is heard: it may have been published before the subscription stood.
            _ = marking.tick(), if !*connected => {
                if let Err(error) = publish(containerd, &marker).await {
                    return Ended::Lost(error);
                }
                continue;
            }
        };
        let envelope = match message {
            Ok(Some(envelope)) => envelope,
            Ok(None) => return Ended::Lost(Error::from_status(call, tonic::Status::unavailable("it ended"))),
            Err(status) => return Ended::Lost(Error::from_status(call, status)),
        };
        let event = if envelope.topic == MARKER_TOPIC {
            let ours = envelope.event.is_some_and(|event| event.value == marker.as_bytes());
            if !ours || std::mem::replace(connected, true) {
                continue;
            }
            Event::Connected
        } else {
            // What came before the marker is not worth more than the list that follows it, but no harm either.
            let Some(event) = decode(&envelope) else { continue };
            event
        };
        match events.try_send(event) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Closed(_)) => return Ended::Unwanted,
            Err(mpsc::error::TrySendError::Full(_)) => {
                return Ended::Lost(Error::from_status(
                    call,
                    tonic::Status::unavailable("events are not taken"),
                ));
            }
        }
    }
}

/// Opens the stream, which takes an event: the marker is published until it does.
async fn open(containerd: &Containerd, marker: &str) -> Result<Streaming<Envelope>, Error> {
    let namespace = containerd.namespace();
    let filters = ["/tasks/exit", "/tasks/oom", MARKER_TOPIC]
        .map(|topic| format!("namespace==\"{namespace}\",topic==\"{topic}\""))
        .to_vec();
    let mut client = containerd.events();
    let opening = within(
        "Events.Subscribe",
        CALL_LIMIT,
        client.subscribe(containerd.request(SubscribeRequest { filters })),
    );
    tokio::pin!(opening);
    let mut marking = tokio::time::interval(MARKER_INTERVAL);
    loop {
        tokio::select! {
            stream = &mut opening => return stream,
            _ = marking.tick() => publish(containerd, marker).await?,
        }
    }
}

async fn publish(containerd: &Containerd, marker: &str) -> Result<(), Error> {
    let event = Any { type_url: "hivemind.Subscribed".to_owned(), value: marker.as_bytes().to_vec() };
    let request = PublishRequest { topic: MARKER_TOPIC.to_owned(), event: Some(event) };
    within("Events.Publish", CALL_LIMIT, containerd.events().publish(containerd.request(request))).await
}

/// `None` for ends of processes that were executed in a container, and for containers that are not ours.
fn decode(envelope: &Envelope) -> Option<Event> {
    let bytes = envelope.event.as_ref()?.value.as_slice();
    match envelope.topic.as_str() {
        "/tasks/exit" => {
            let exit = TaskExit::decode(bytes).ok().filter(|exit| exit.id == exit.container_id)?;
            Some(Event::Exit { id: exit.container_id.parse().ok()?, pid: exit.pid, code: exit.exit_status })
        }
        "/tasks/oom" => Some(Event::Oom { id: TaskOom::decode(bytes).ok()?.container_id.parse().ok()? }),
        _ => None,
    }
}
