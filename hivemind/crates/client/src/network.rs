//! Requests about namespaces, network policies and flows.

use hivemind_model::{
    ApiError, AppliedPolicies, ApplyPolicies, FlowLine, FlowVerdict, FlowWords, Namespace, NetCheck,
    NetTrace, NetworkPolicy, PolicyCheck, PolicyMatrix, PolicySimulation, PolicySuggestion, Resource,
    SimulatePolicies,
};
use hyper::Method;

use crate::{
    client::Client,
    connection::{empty, json},
    lines::JsonLines,
    path::ApiPath,
};

/// Which flows to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowOptions {
    /// Only these; `until` is for [`Client::flow_history`].
    pub words: FlowWords,
    /// Whether to go on with new ones as they come.
    pub follow: bool,
    /// At most this many of the last ones that are known already; `None`: 100.
    pub tail: Option<u64>,
}

/// Which packet to trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceOptions {
    /// Who sends it: `app`, `app/replica`, `host`, or an address.
    pub from: String,
    /// Where it is sent to; as `from`.
    pub to: String,
    /// The port that it is sent to.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The port that it is sent from; `None`: one from which nothing is known.
    pub source_port: Option<u16>,
    /// The namespace of apps; `None`: `default`.
    pub namespace: Option<String>,
    /// Whether names stand for IPv6 addresses.
    pub ipv6: bool,
    /// The node whose programs are asked, where it is no replica that sends.
    pub node: Option<String>,
}

/// Which connection policies are asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyCheckOptions {
    /// Who makes it: `app`, `namespace/app`, `host`, or an address.
    pub from: String,
    /// With whom; as `from`.
    pub to: String,
    /// `tcp`, `udp`, `sctp` or `icmp`.
    pub protocol: String,
    /// The port of the end that takes it; `None` for `icmp`.
    pub port: Option<u16>,
    /// The namespace of apps that are named without one; `None`: `default`.
    pub namespace: Option<String>,
}

/// For what policies are suggested.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicySuggestOptions {
    /// The app; `None`: all apps of the namespace.
    pub app: Option<String>,
    /// The namespace; `None`: `default`.
    pub namespace: Option<String>,
    /// By what was seen from then on: as [`FlowWords::since`]; `None`: a day ago.
    pub since: Option<String>,
    /// By what was seen before then; as `since`; `None`: now.
    pub until: Option<String>,
}

/// Of what it is told who may speak to whom, and who does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyMatrixOptions {
    /// Only pairs of which one end is an app of this namespace; `None`: all.
    pub namespace: Option<String>,
    /// Beside what was seen from then on: as [`FlowWords::since`]; `None`: an hour ago.
    pub since: Option<String>,
    /// Beside what was seen before then; as `since`; `None`: now.
    pub until: Option<String>,
}

/// Flows as they come. It ends when the daemon has no more, and is dropped to stop it.
pub type FlowStream = JsonLines<FlowLine>;

impl Client {
    /// One namespace.
    ///
    /// # Errors
    /// `NamespaceNotFound`.
    pub async fn namespace(&self, namespace: &str) -> Result<Namespace, ApiError> {
        self.get(&ApiPath::of(Namespace::PLURAL).part(namespace)).await
    }

    /// Makes a namespace; returns it as it is kept.
    ///
    /// # Errors
    /// Every fault at once; `NamespaceExists`.
    pub async fn create_namespace(&self, namespace: &Namespace) -> Result<Namespace, ApiError> {
        self.change(Method::POST, &ApiPath::of(Namespace::PLURAL), json(namespace)?).await
    }

    /// Everything that [`Client::create_namespace`] checks, without making it.
    ///
    /// # Errors
    /// As [`Client::create_namespace`].
    pub async fn try_namespace(&self, namespace: &Namespace) -> Result<Namespace, ApiError> {
        let path = ApiPath::of(Namespace::PLURAL).query("dryRun", "true");
        self.change(Method::POST, &path, json(namespace)?).await
    }

    /// Replaces the labels and annotations of a namespace, if it is still what `namespace` was read as; returns it as it
    /// is kept.
    ///
    /// # Errors
    /// Every fault at once; `NamespaceNotFound`, `Stale`.
    pub async fn replace_namespace(&self, namespace: &Namespace) -> Result<Namespace, ApiError> {
        let path = ApiPath::of(Namespace::PLURAL).part(&namespace.metadata.name);
        self.change(Method::PUT, &path, json(namespace)?).await
    }

    /// Deletes a namespace in which nothing is.
    ///
    /// # Errors
    /// `NamespaceNotFound`; `NamespaceInUse`, which names what is in it.
    pub async fn delete_namespace(&self, namespace: &str) -> Result<(), ApiError> {
        self.delete(&ApiPath::of(Namespace::PLURAL).part(namespace)).await
    }

    /// One network policy.
    ///
    /// # Errors
    /// `PolicyNotFound`.
    pub async fn policy(&self, namespace: &str, policy: &str) -> Result<NetworkPolicy, ApiError> {
        self.get(&ApiPath::within(namespace, NetworkPolicy::PLURAL).part(policy)).await
    }

    /// Makes policies, or changes those that are there: all of them or, if one is refused, none.
    ///
    /// # Errors
    /// Every fault of all of them at once, at `items[i].…`.
    pub async fn apply_policies(&self, policies: &ApplyPolicies) -> Result<AppliedPolicies, ApiError> {
        let path = ApiPath::of(NetworkPolicy::PLURAL).part("apply");
        self.change(Method::POST, &path, json(policies)?).await
    }

    /// Everything that [`Client::apply_policies`] checks and would do, without doing it.
    ///
    /// # Errors
    /// As [`Client::apply_policies`].
    pub async fn try_policies(&self, policies: &ApplyPolicies) -> Result<AppliedPolicies, ApiError> {
        let path = ApiPath::of(NetworkPolicy::PLURAL).part("apply").query("dryRun", "true");
        self.change(Method::POST, &path, json(policies)?).await
    }

    /// What policies say of a connection, and why.
    ///
    /// # Errors
    /// What does not exist; every fault of the question at once.
    pub async fn check_policies(&self, options: &PolicyCheckOptions) -> Result<PolicyCheck, ApiError> {
        let path = ApiPath::of(NetworkPolicy::PLURAL)
            .part("check")
            .query("from", &options.from)
            .query("to", &options.to)
            .query("protocol", &options.protocol)
            .query_if("port", options.port.map(|port| port.to_string()).as_deref())
            .query_if("namespace", options.namespace.as_deref());
        self.get(&path).await
    }

    /// What policies would make of the flows that were recorded since then (`None`: one hour ago) and until then. Nothing is written.
    ///
    /// # Errors
    /// As [`Client::apply_policies`]; `PolicyNotFound` of those to delete; `Malformed` of times.
    pub async fn simulate_policies(
        &self,
        policies: &SimulatePolicies,
        since: Option<&str>,
        until: Option<&str>,
    ) -> Result<PolicySimulation, ApiError> {
        let path = ApiPath::of(NetworkPolicy::PLURAL)
            .part("simulate")
            .query_if("since", since)
            .query_if("until", until);
        self.change(Method::POST, &path, json(policies)?).await
    }

    /// The least policies that allow what the nodes recorded. Nothing is applied.
    ///
    /// # Errors
    /// What does not exist; `NothingSeen`; `OutOfRange` if there is too much; every fault of the question at once.
    pub async fn suggest_policies(
        &self,
        options: &PolicySuggestOptions,
    ) -> Result<PolicySuggestion, ApiError> {
        let path = ApiPath::of(NetworkPolicy::PLURAL)
            .part("suggest")
            .query_if("app", options.app.as_deref())
            .query_if("namespace", options.namespace.as_deref())
            .query_if("since", options.since.as_deref())
            .query_if("until", options.until.as_deref());
        self.get(&path).await
    }

    /// Who may speak to whom by the policies as they are, beside who did by what the nodes recorded.
    ///
    /// # Errors
    /// `NamespaceNotFound`; `NotServer`; every fault of the question at once.
    pub async fn policy_matrix(&self, options: &PolicyMatrixOptions) -> Result<PolicyMatrix, ApiError> {
        let path = ApiPath::of(NetworkPolicy::PLURAL)
            .part("matrix")
            .query_if("namespace", options.namespace.as_deref())
            .query_if("since", options.since.as_deref())
            .query_if("until", options.until.as_deref());
        self.get(&path).await
    }

    /// Deletes a network policy.
    ///
    /// # Errors
    /// `PolicyNotFound`.
    pub async fn delete_policy(&self, namespace: &str, policy: &str) -> Result<(), ApiError> {
        self.delete(&ApiPath::within(namespace, NetworkPolicy::PLURAL).part(policy)).await
    }

    /// What would become of a packet. Nothing is sent, and nothing changed.
    ///
    /// # Errors
    /// What does not exist; `Malformed`; `NotServer` if another node sends it, which this one does not ask.
    pub async fn trace(&self, options: &TraceOptions) -> Result<NetTrace, ApiError> {
        let path = ApiPath::of("net")
            .part("trace")
            .query("from", &options.from)
            .query("to", &options.to)
            .query("port", &options.port.to_string())
            .query("protocol", &options.protocol)
            .query_if("sourcePort", options.source_port.map(|port| port.to_string()).as_deref())
            .query_if("namespace", options.namespace.as_deref())
            .query_if("ipv6", options.ipv6.then_some("true"))
            .query_if("node", options.node.as_deref());
        self.get(&path).await
    }

    /// Walks every path of a node's network (`None`: that of the node which answers), and to somebody `outside`.
    ///
    /// # Errors
    /// `Busy` while another check goes on; `NodeNotFound`.
    pub async fn check_network(
        &self,
        node: Option<&str>,
        outside: Option<&str>,
    ) -> Result<NetCheck, ApiError> {
        let path = ApiPath::of("net").part("check").query_if("node", node).query_if("outside", outside);
        self.change_at_length(Method::POST, &path, empty()).await
    }

    /// Who speaks to whom, and what becomes of it.
    ///
    /// # Errors
    /// `Malformed` for a filter that cannot be read; the stream has its own.
    pub async fn flows(&self, options: &FlowOptions) -> Result<FlowStream, ApiError> {
        let path = narrowed(ApiPath::of("flows"), &options.words)
            .query_if("tail", options.tail.map(|tail| tail.to_string()).as_deref())
            .query_if("follow", options.follow.then_some("true"));
        self.stream(&path).await
    }

    /// What went in past minutes.
    ///
    /// # Errors
    /// `Malformed` for a filter that cannot be read; the stream has its own.
    pub async fn flow_history(&self, words: &FlowWords) -> Result<FlowStream, ApiError> {
        let path =
            narrowed(ApiPath::of("flows").part("history"), words).query_if("until", words.until.as_deref());
        self.stream(&path).await
    }
}

fn narrowed(path: ApiPath, words: &FlowWords) -> ApiPath {
    path.query_if("from", words.from.as_deref())
        .query_if("to", words.to.as_deref())
        .query_if("port", words.port.as_deref())
        .query_if("protocol", words.protocol.as_deref())
        .query_if("verdict", words.verdict.map(FlowVerdict::as_str))
        .query_if("reason", words.reason.as_deref())
        .query_if("since", words.since.as_deref())
}
