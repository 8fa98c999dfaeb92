//! Tokens, sessions, and who may do what on the web port.

use futures::{SinkExt, StreamExt};
use hivemind_model::{ErrorCode, Token};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{self, Message, client::IntoClientRequest},
};

use crate::{
    harness::{Server, app},
    web_port::{WebPort, bearer, cookie},
};

const APPS: &str = "/v1/namespaces/default/apps";
const NOTHING: Value = Value::Null;

#[tokio::test]
async fn a_token_is_shown_once_and_its_hash_never() {
    let server = Server::start().await;
    let secret = server.create_token("ci", "admin").await;
    assert!(secret.starts_with("hmt_") && secret.len() == 68, "{secret}");
    let list = server.get("/v1/tokens").await.1;
    assert_eq!(list["items"][0]["metadata"]["name"], "ci");
    assert_eq!(list["items"][0]["spec"], json!({"role": "admin"}));
    let kept: Token = server.objects.get("", "ci").await.unwrap();
    assert_eq!(kept.spec.hash.len(), 64);
    assert!(!list.to_string().contains(&kept.spec.hash) && !kept.spec.hash.contains(&secret[4..]));

    let body = json!({"metadata": {"name": "ci"}, "spec": {"role": "read-only"}});
    server.refused("POST", "/v1/tokens", body, 409, ErrorCode::TokenExists).await;
    let body = json!({"metadata": {"name": "C I"}, "spec":
        {"role": "admin", "hash": kept.spec.hash, "expiresAt": "2020-01-01T00:00:00Z"}});
    let error = server.refused("POST", "/v1/tokens", body, 400, ErrorCode::InvalidName).await;
    let fields: Vec<_> = error.problems.iter().map(|p| p.field.as_str()).collect();
    assert_eq!(fields, ["metadata.name", "spec.hash", "spec.expiresAt"]);
    let (status, gone) = server.send("DELETE", "/v1/tokens/ci", NOTHING).await;
    assert_eq!((status.as_u16(), gone.pointer("/spec/hash")), (200, None), "{gone}");
    server.refused("DELETE", "/v1/tokens/ci", NOTHING, 404, ErrorCode::TokenNotFound).await;
}

#[tokio::test]
async fn the_bearer_of_a_valid_token_gets_in_and_nobody_else() {
    let web = WebPort::start().await;
    let secret = web.server.create_token("ci", "admin").await;
    let good = bearer(&secret);
    let (status, session) = web.send_json("GET", "/v1/session", &[("authorization", &good)], NOTHING).await;
    assert_eq!((status, session), (200, json!({"name": "ci", "role": "admin"})));
    let lower = format!("bearer {secret}");
    assert_eq!(web.send_json("POST", APPS, &[("authorization", &lower)], app("web")).await.0, 201);
    assert_eq!(web.send_json("GET", "/metrics", &[("authorization", &good)], NOTHING).await.0, 200);
    let cut = bearer(&secret[..67]);
    let basic = format!("Basic {secret}");
    for wrong in ["", "Bearer", "Bearer ", "Bearer hmt_0", &cut, &basic, &secret, "Bearer \u{e9}"] {
        web.refused("GET", "/v1/apps", &[("authorization", wrong)], NOTHING, 401, ErrorCode::Unauthorized)
            .await;
    }
    assert_eq!(web.server.api.statistics().access_failures, 8);
}

#[tokio::test]
async fn a_token_is_not_valid_once_it_expired() {
    let web = WebPort::start().await;
    let at = jiff::Timestamp::now() + std::time::Duration::from_millis(1500);
    let body = json!({"metadata": {"name": "brief"}, "spec": {"role": "admin", "expiresAt": at}});
    let (_, made) = web.server.send("POST", "/v1/tokens", body).await;
    let header = bearer(made["secret"].as_str().unwrap());
    let header = [("authorization", header.as_str())];
    let mut watch = web.lines("/v1/apps?watch=true", &header).await;
    watch.expect("bookmark", "").await;
    // The stream itself says when that time has come.
    let line = watch.json().await;
    assert_eq!((&line["type"], &line["error"]["code"]), (&json!("error"), &json!("HM0801")));
    assert!(jiff::Timestamp::now() >= at);
    web.refused("GET", "/v1/apps", &header, NOTHING, 401, ErrorCode::Unauthorized).await;
}

#[tokio::test]
async fn a_reader_sees_everything_but_tokens_and_changes_nothing() {
    let web = WebPort::start().await;
    web.server.create_app(app("web")).await;
    web.server.create_replica("web", "web-abcde").await;
    let secret = bearer(&web.server.create_token("eye", "read-only").await);
    let header = [("authorization", secret.as_str())];
    for path in
        ["/v1/apps", "/v1/status", "/v1/namespaces/default/apps/web", "/v1/flows", "/metrics", "/v1/session"]
    {
        assert_eq!(web.send_json("GET", path, &header, NOTHING).await.0, 200, "{path}");
    }
    let exec = "/v1/namespaces/default/replicas/web-abcde/exec?command=true";
    for (method, path, body) in [
        ("POST", APPS, app("other")),
        ("DELETE", "/v1/namespaces/default/apps/web", NOTHING),
        ("PUT", "/v1/namespaces/default/apps/web/scale", json!({"replicas": 0})),
        ("POST", "/v1/namespaces", json!({"metadata": {"name": "team"}})),
        ("POST", "/v1/images/import", NOTHING),
        ("GET", "/v1/tokens", NOTHING),
        ("POST", "/v1/tokens", json!({"metadata": {"name": "x"}, "spec": {"role": "admin"}})),
        ("DELETE", "/v1/tokens/eye", NOTHING),
        ("POST", "/v1/login-codes", NOTHING),
        ("GET", exec, NOTHING),
    ] {
        let error = web.refused(method, path, &header, body, 403, ErrorCode::Forbidden).await;
        assert!(error.message.contains("\"eye\"") && error.hint.contains("admin"), "{error:?}");
    }
    assert_eq!(web.server.get("/v1/apps").await.1["items"][0]["spec"]["replicas"], 1);
    assert!(web.server.node.last_exec.lock().unwrap().is_none(), "a process was started");
}

#[tokio::test]
async fn a_token_that_is_revoked_ends_what_it_began() {
    let web = WebPort::start().await;
    web.server.create_replica("web", "web-abcde").await;
    let secret = bearer(&web.server.create_token("ci", "admin").await);
    let other = bearer(&web.server.create_token("other", "admin").await);
    let header = [("authorization", secret.as_str())];
    let mut watch = web.lines("/v1/apps?watch=true", &header).await;
    watch.expect("bookmark", "").await;
    let mut kept = web.lines("/v1/apps?watch=true", &[("authorization", &other)]).await;
    kept.expect("bookmark", "").await;
    let mut flows = web.lines("/v1/flows?follow=true", &header).await;
    assert_eq!(flows.json().await["type"], "lost");
    let mut session = exec(&web, &header).await.unwrap();
    session.send(Message::Binary(vec![0, b'a'].into())).await.unwrap();
    let echo = session.next().await.unwrap().unwrap();
    assert_eq!(echo.into_data().as_ref(), b"\x01a");
    let login = json!({"token": secret.strip_prefix("Bearer ").unwrap()});
    let browser = cookie(&web.send("POST", "/v1/login", &[], login).await);
    let browser = [("cookie", browser.as_str())];
    assert_eq!(web.send_json("GET", "/v1/session", &browser, NOTHING).await.1["name"], "ci");
    let mut page = web.lines("/v1/apps?watch=true", &browser).await;
    page.expect("bookmark", "").await;

    assert_eq!(web.server.send("DELETE", "/v1/tokens/ci", NOTHING).await.0, 200);
    web.refused("GET", "/v1/apps", &header, NOTHING, 401, ErrorCode::Unauthorized).await;
    web.refused("GET", "/v1/apps", &browser, NOTHING, 401, ErrorCode::Unauthorized).await;
    for stream in [&mut watch, &mut flows, &mut page] {
        let line = stream.json().await;
        assert_eq!((&line["type"], &line["error"]["code"]), (&json!("error"), &json!("HM0801")));
        assert_eq!(stream.said().await, None);
    }
    let exit = session.next().await.unwrap().unwrap().into_data();
    assert_eq!(exit[0], 3);
    let exit: Value = serde_json::from_slice(&exit[1..]).unwrap();
    assert_eq!(exit["error"]["code"], "HM0801");
    web.server.node.sessions.subscribe().wait_for(|open| *open == 0).await.unwrap();
    // What stands on other tokens goes on.
    web.server.create_app(app("later")).await;
    kept.expect("added", "later").await;
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

/// Opens a session with a process that says again what it is told.
async fn exec(web: &WebPort, headers: &[(&'static str, &str)]) -> Result<Socket, tungstenite::Error> {
    let path = "/v1/namespaces/default/replicas/web-abcde/exec?command=cat";
    let mut request = format!("ws://localhost:{}{path}", web.port).into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    connect_async(request).await.map(|(socket, _)| socket)
}

#[tokio::test]
async fn a_code_begins_one_session_and_logging_out_ends_it() {
    let web = WebPort::start().await;
    let (_, code) = web.server.send("POST", "/v1/login-codes", NOTHING).await;
    let text = code["code"].as_str().unwrap();
    assert_eq!(code["url"], format!("http://localhost:4483/#code={text}"));
    let response = web.send("POST", "/v1/login", &[], json!({"code": text})).await;
    let set = response.headers()["set-cookie"].to_str().unwrap().to_owned();
    for part in ["hivemind_session=", "; HttpOnly", "; SameSite=Strict", "; Path=/", "; Max-Age=43200"] {
        assert!(set.contains(part), "{set}");
    }
    assert!(!set.contains("Secure"), "a browser would not send it back without TLS: {set}");
    let header = cookie(&response);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let session: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&session["name"], &session["role"]), (&json!("ui"), &json!("admin")));
    web.refused("POST", "/v1/login", &[], json!({"code": text}), 401, ErrorCode::Unauthorized).await;
    for body in [json!({}), json!({"code": "a", "token": "b"})] {
        web.refused("POST", "/v1/login", &[], body, 400, ErrorCode::Malformed).await;
    }

    let header = [("cookie", header.as_str()), ("sec-fetch-site", "same-origin")];
    let mut watch = web.lines("/v1/apps?watch=true", &header).await;
    watch.expect("bookmark", "").await;
    assert_eq!(web.server.api.statistics().sessions, 1);
    let response = web.send("POST", "/v1/logout", &header, NOTHING).await;
    assert_eq!(response.status(), 204);
    assert!(response.headers()["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(watch.json().await["error"]["code"], "HM0801");
    web.refused("GET", "/v1/apps", &header, NOTHING, 401, ErrorCode::Unauthorized).await;
    assert_eq!(web.server.api.statistics().sessions, 0);
}

#[tokio::test]
async fn a_code_ends_with_the_token_that_asked_for_it() {
    let web = WebPort::start().await;
    let secret = bearer(&web.server.create_token("ci", "admin").await);
    let header = [("authorization", secret.as_str())];
    let mut codes = Vec::new();
    for _ in 0..2 {
        codes.push(web.send_json("POST", "/v1/login-codes", &header, NOTHING).await.1["code"].clone());
    }
    let response = web.send("POST", "/v1/login", &[], json!({"code": codes[0]})).await;
    let browser = cookie(&response);
    let browser = [("cookie", browser.as_str())];
    let mut watch = web.lines("/v1/apps?watch=true", &browser).await;
    watch.expect("bookmark", "").await;
    web.server.send("DELETE", "/v1/tokens/ci", NOTHING).await;
    assert_eq!(watch.json().await["error"]["code"], "HM0801");
    web.refused("POST", "/v1/login", &[], json!({"code": codes[1]}), 401, ErrorCode::Unauthorized).await;
    web.refused("GET", "/v1/apps", &browser, NOTHING, 401, ErrorCode::Unauthorized).await;
}

#[tokio::test]
async fn pages_of_other_sites_cannot_make_a_browser_ask() {
    let web = WebPort::start().await;
    web.server.create_replica("web", "web-abcde").await;
    let secret = bearer(&web.server.create_token("ci", "admin").await);
    let session = web.log_in().await;
    let own = web.origin();
    let other_port = format!("http://localhost:{}", web.port.wrapping_add(1));
    let encrypted = own.replace("http:", "https:");
    let signs = [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("origin", &other_port),
        ("origin", &encrypted),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ];
    for sign in signs {
        for login in [("cookie", session.as_str()), ("authorization", secret.as_str())] {
            web.refused("POST", APPS, &[login, sign], app("evil"), 403, ErrorCode::Forbidden).await;
            web.refused("GET", "/v1/apps", &[login, sign], NOTHING, 403, ErrorCode::Forbidden).await;
            web.refused("GET", "/metrics", &[login, sign], NOTHING, 403, ErrorCode::Forbidden).await;
            assert_eq!(refusal(exec(&web, &[login, sign]).await), 403, "{sign:?}");
        }
        let code = json!({"code": "x"});
        web.refused("POST", "/v1/login", &[sign], code, 403, ErrorCode::Forbidden).await;
    }
    // A browser that says nothing of the page is an old one, and may be led astray.
    let bare = [("cookie", session.as_str())];
    web.refused("POST", APPS, &bare, app("evil"), 403, ErrorCode::Forbidden).await;
    assert_eq!(refusal(exec(&web, &bare).await), 403);
    let typed = [bare[0], ("sec-fetch-site", "none")];
    web.refused("POST", APPS, &typed, app("evil"), 403, ErrorCode::Forbidden).await;
    assert_eq!(web.server.get("/v1/apps").await.1["items"], json!([]));
    assert!(web.server.node.last_exec.lock().unwrap().is_none());

    for sign in [("origin", own.as_str()), ("sec-fetch-site", "same-origin")] {
        let (status, _) = web.send_json("POST", APPS, &[bare[0], sign], app(&format!("a-{}", sign.0))).await;
        assert_eq!(status, 201, "{sign:?}");
        exec(&web, &[bare[0], sign]).await.unwrap();
    }
    assert_eq!(web.send_json("GET", "/v1/apps", &bare, NOTHING).await.0, 200);
}

/// The status with which a session was refused.
fn refusal(opened: Result<Socket, tungstenite::Error>) -> u16 {
    match opened {
        Err(tungstenite::Error::Http(response)) => response.status().as_u16(),
        other => panic!("{:?}", other.map(drop)),
    }
}

#[tokio::test]
async fn no_other_site_is_ever_allowed_to_read() {
    let web = WebPort::start().await;
    let secret = bearer(&web.server.create_token("ci", "admin").await);
    let (auth, own) = (("authorization", secret.as_str()), web.origin());
    let preflight = [("origin", "https://evil.example"), ("access-control-request-method", "POST")];
    for (method, path, headers) in [
        ("OPTIONS", "/v1/apps", preflight.to_vec()),
        ("OPTIONS", "/", preflight.to_vec()),
        ("GET", "/", vec![("origin", "https://evil.example")]),
        ("GET", "/v1/apps", vec![auth]),
        ("GET", "/v1/apps", vec![auth, ("origin", own.as_str())]),
    ] {
        let response = web.send(method, path, &headers, NOTHING).await;
        let cors = response.headers().keys().find(|name| name.as_str().starts_with("access-control"));
        assert_eq!(cors, None, "{method} {path}");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff", "{method} {path}");
        assert_eq!(response.headers()["x-frame-options"], "DENY");
        if path.starts_with("/v1") {
            assert_eq!(response.headers()["cross-origin-resource-policy"], "same-origin");
            assert_eq!(response.headers()["cache-control"], "no-store");
        }
        if response.status() == 200 {
            let policy = response.headers()["content-security-policy"].to_str().unwrap();
            assert!(
                policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
                "{policy}"
            );
        }
    }
}

#[tokio::test]
async fn guessing_is_slowed_down_and_holds_nobody_else_up() {
    let web = WebPort::start().await;
    let secret = bearer(&web.server.create_token("ci", "admin").await);
    let mut statuses = std::collections::BTreeMap::new();
    for i in 0..60 {
        let guess = bearer(&format!("hmt_{i}"));
        let (status, body) = web.send_json("GET", "/v1/apps", &[("authorization", &guess)], NOTHING).await;
        let code = body["code"].as_str().unwrap().to_owned();
        *statuses.entry((status, code)).or_insert(0) += 1;
    }
    assert!(statuses[&(401, "HM0801".to_owned())] >= 20, "{statuses:?}");
    assert!(statuses[&(429, "HM0513".to_owned())] >= 10, "{statuses:?}");
    assert_eq!(statuses.len(), 2, "{statuses:?}");
    let (status, _) = web.send_json("GET", "/v1/apps", &[("authorization", &secret)], NOTHING).await;
    assert_eq!(status, 200);
    assert_eq!(web.server.api.statistics().access_failures, 60);
}

#[tokio::test]
async fn requests_are_counted_by_what_became_of_them() {
    let server = Server::start().await;
    server.get("/v1/apps").await;
    server.get("/v1/namespaces/default/apps/none").await;
    server.get("/nowhere").await;
    assert_eq!(server.api.statistics().requests, [0, 1, 0, 2, 0]);
}
