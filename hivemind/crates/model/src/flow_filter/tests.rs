use super::*;

fn end() -> FlowEnd {
    FlowEnd {
        kind: "replica".into(),
        namespace: "shop".into(),
        app: "web".into(),
        replica: "web-k3f9q".into(),
        node: "n1".into(),
        identity: 300,
        address: Some([10, 200, 0, 7].into()),
        port: Some(80),
        domain: String::new(),
    }
}

fn now() -> Timestamp {
    "2026-01-31T12:00:00Z".parse().unwrap()
}

#[test]
fn an_end_of_a_flow_is_read_as_people_write_it() {
    let app = |namespace: Option<&str>, app: &str| FlowFilter::App {
        namespace: namespace.map(str::to_owned),
        app: app.to_owned(),
    };
    for (text, filter) in [
        ("host", FlowFilter::Host),
        ("dns", FlowFilter::Dns),
        ("world", FlowFilter::World),
        ("unknown", FlowFilter::Unknown),
        ("web", app(None, "web")),
        ("team/web", app(Some("team"), "web")),
        ("team/host", app(Some("team"), "host")),
        ("team/*", FlowFilter::Namespace("team".into())),
        ("node/n1", FlowFilter::Node("n1".into())),
        ("192.0.2.1", FlowFilter::Net("192.0.2.1/32".parse().unwrap())),
        ("192.0.2.1/24", FlowFilter::Net("192.0.2.0/24".parse().unwrap())),
        ("2001:db8::1", FlowFilter::Net("2001:db8::1/128".parse().unwrap())),
        ("Api.Example.org.", FlowFilter::Domain("api.example.org".into())),
        ("_dns.example.org", FlowFilter::Domain("_dns.example.org".into())),
    ] {
        assert_eq!(text.parse::<FlowFilter>().unwrap(), filter, "{text}");
        assert_eq!(filter.to_string().parse::<FlowFilter>().unwrap(), filter, "{filter}");
    }
    for text in [
        "",
        "/",
        "a/",
        "/a",
        "a/b/c",
        "Web",
        "192.0.2.1/33",
        "a b",
        "*",
        "*/web",
        "node/*",
        "node/",
        ".",
        "example.org..",
        ".example.org",
        "*.example.org",
        "192.0.2.300",
        "team/example.org",
    ] {
        assert_eq!(text.parse::<FlowFilter>().unwrap_err().code, ErrorCode::Malformed, "{text}");
    }
}

#[test]
fn an_end_is_meant_by_its_names_its_kind_and_its_address() {
    let selects = |word: &str, end: &FlowEnd| word.parse::<FlowFilter>().unwrap().selects(end);
    for word in ["web", "shop/web", "shop/*", "web-k3f9q", "10.200.0.7", "10.200.0.0/16"] {
        assert!(selects(word, &end()), "{word}");
    }
    for word in ["we", "default/web", "default/*", "node/n1", "host", "world", "10.200.0.8", "fd00::/8"] {
        assert!(!selects(word, &end()), "{word}");
    }
    for kind in ["host", "node"] {
        let processes = FlowEnd { kind: kind.into(), node: "n1".into(), ..FlowEnd::default() };
        assert!(selects("node/n1", &processes) && !selects("node/n2", &processes), "{kind}");
    }
}

/// A record of so many connections, of which those of the shares were told.
fn minute(connections: u64, shares: Vec<FlowShare>) -> FlowMinute {
    let told: u64 = shares.iter().map(|share| share.connections).sum();
    FlowMinute {
        minute: now(),
        seconds: 60,
        node: "n1".into(),
        verdict: FlowVerdict::Allowed,
        source: end(),
        destination: FlowEnd { kind: "world".into(), port: Some(443), ..FlowEnd::default() },
        protocol: "tcp".into(),
        exact: true,
        connections,
        bytes_sent: 1,
        bytes_received: 1,
        packets_sent: 1,
        packets_received: 1,
        rtt_us: None,
        shares,
        untold: connections - told,
    }
}

#[test]
fn a_record_is_wanted_for_what_it_has_some_of_and_one_share_has_to_fit_in_all() {
    let share = |verdict, address: &str| FlowShare {
        verdict,
        destination: Some(address.parse().unwrap()),
        connections: 1,
        ..FlowShare::default()
    };
    let audited = share(Some(FlowVerdict::Audited), "192.0.2.1/32");
    let allowed = share(None, "192.0.2.2/32");
    let wanted = |verdict, to: Option<&str>, minute: &FlowMinute| {
        let to = to.map(|word| word.parse().unwrap());
        FlowSelection { verdict: Some(verdict), to, ..FlowSelection::default() }.wants_minute(minute)
    };
    let both = minute(2, vec![audited.clone(), allowed.clone()]);
    let only_audited = minute(1, vec![audited.clone()]);
    for (verdict, minute, expected) in [
        (FlowVerdict::Audited, &both, true),
        (FlowVerdict::Allowed, &both, true),
        (FlowVerdict::Denied, &both, false),
        (FlowVerdict::Audited, &only_audited, true),
        (FlowVerdict::Allowed, &only_audited, false),
        (FlowVerdict::Allowed, &minute(2, vec![audited]), true),
        (FlowVerdict::Audited, &minute(1, vec![allowed]), false),
        (FlowVerdict::Audited, &minute(1, vec![]), false),
        (FlowVerdict::Allowed, &minute(0, vec![]), true),
    ] {
        assert_eq!(wanted(verdict, None, minute), expected, "{verdict:?}: {minute:?}");
    }
    assert!(wanted(FlowVerdict::Audited, Some("192.0.2.1"), &both));
    assert!(wanted(FlowVerdict::Audited, Some("world"), &both));
    assert!(!wanted(FlowVerdict::Audited, Some("192.0.2.2"), &both), "that one is allowed");
    let named = FlowShare { domain: "api.example.org".into(), ..share(None, "192.0.2.1/32") };
    let named = minute(2, vec![named]);
    assert!(wanted(FlowVerdict::Allowed, Some("api.example.org"), &named));
    assert!(!wanted(FlowVerdict::Allowed, Some("example.org"), &named));
    assert!(!wanted(FlowVerdict::Allowed, Some("api.example.org"), &both));
}

#[test]
fn a_domain_is_meant_by_its_name_and_only_of_destinations() {
    let outside = FlowEnd { kind: "world".into(), domain: "api.example.org".into(), ..FlowEnd::default() };
    let to: FlowFilter = "api.example.org".parse().unwrap();
    assert!(to.selects(&outside) && !to.selects(&end()));
    assert!(!"example.org".parse::<FlowFilter>().unwrap().selects(&outside));
    let mut problems = Problems::default();
    let from = FlowWords { from: Some("api.example.org".into()), ..FlowWords::default() };
    assert_eq!(from.read(now(), &mut problems).from, None);
    assert_eq!(problems.into_result().unwrap_err().field.as_deref(), Some("from"));
}

#[test]
fn ports_are_one_or_a_range_of_any_protocol_or_one() {
    let select = |word: &str, port, protocol| word.parse::<FlowPorts>().unwrap().select(port, protocol);
    assert!(select("80", Some(80), "udp") && !select("80", Some(81), "udp") && !select("80", None, "icmp"));
    assert!(select("80/tcp", Some(80), "tcp") && !select("80/tcp", Some(80), "udp"));
    assert!(select("8000-8099", Some(8000), "tcp") && select("8000-8099/udp", Some(8099), "udp"));
    assert!(!select("8000-8099", Some(8100), "tcp"));
    for word in ["80", "80/tcp", "8000-8099", "8000-8099/udp"] {
        assert_eq!(word.parse::<FlowPorts>().unwrap().to_string(), word);
    }
    for word in ["", "0", "80/", "80/http", "99-80", "65536", "-", "80-", "1-2-3", "+", " 80"] {
        assert_eq!(word.parse::<FlowPorts>().unwrap_err().code, ErrorCode::Malformed, "{word:?}");
    }
}

#[test]
fn a_time_is_said_as_such_or_by_how_long_ago_it_was() {
    for (word, time) in [
        ("30s", "2026-01-31T11:59:30Z"),
        ("30m", "2026-01-31T11:30:00Z"),
        ("1h", "2026-01-31T11:00:00Z"),
        ("2d", "2026-01-29T12:00:00Z"),
        ("2026-01-31T12:00:00+01:00", "2026-01-31T11:00:00Z"),
    ] {
        assert_eq!(moment(word, now()).unwrap(), time.parse::<Timestamp>().unwrap(), "{word}");
    }
    for word in ["", "h", "0s", "1", "-1h", "1w", "367d", "99999999999h", "yesterday", "1é"] {
        assert_eq!(moment(word, now()).unwrap_err().code, ErrorCode::Malformed, "{word:?}");
    }
}

#[test]
fn words_that_mean_nothing_are_all_told_and_those_that_do_can_be_said_again() {
    let word = |word: &str| Some(word.to_owned());
    let mut problems = Problems::default();
    let wrong = FlowWords {
        from: word("a/b/c"),
        to: word("Web"),
        port: word("http"),
        protocol: word("http"),
        verdict: None,
        reason: word("policy"),
        since: word("soon"),
        until: word("later"),
    };
    assert_eq!(wrong.read(now(), &mut problems), FlowSelection::default());
    let error = problems.into_result().unwrap_err();
    let fields: Vec<_> = error.problems.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, ["from", "to", "port", "protocol", "reason", "since", "until"]);
    assert!(error.problems[4].hint.contains("did you mean policy_egress?"), "{}", error.problems[4].hint);

    let mut problems = Problems::default();
    let right = FlowWords {
        from: word("shop/*"),
        port: word("80/tcp"),
        protocol: word("6"),
        reason: word("policy_ingress"),
        since: word("1h"),
        until: word("30m"),
        ..FlowWords::default()
    };
    let selection = right.read(now(), &mut problems);
    assert_eq!(selection.protocol.as_deref(), Some("tcp"));
    let later = now().checked_add(SignedDuration::from_hours(5)).unwrap();
    assert_eq!(selection.words().read(later, &mut problems), selection);
    problems.into_result().unwrap();
    let backwards = FlowWords { since: word("30m"), until: word("1h"), ..FlowWords::default() };
    let mut problems = Problems::default();
    backwards.read(now(), &mut problems);
    assert_eq!(problems.into_result().unwrap_err().field.as_deref(), Some("until"));
}
