//! What only one app of a cluster can have, and two of the same files want. The daemon finds it out only once one of them has it.

use std::collections::HashMap;

use hivemind_manifest::{AppDocument, Fault};
use hivemind_model::{App, ErrorCode, Problem};

/// The faults of all apps that want what one before them wants as well.
pub(super) fn faults(documents: &[AppDocument]) -> Vec<Fault> {
    let mut held: HashMap<String, &AppDocument> = HashMap::new();
    let mut faults = Vec::new();
    for document in documents {
        for (claim, field, code) in claims(&document.app) {
            let first = *held.entry(claim.clone()).or_insert(document);
            if std::ptr::eq(first, document) {
                continue;
            }
            let message =
                format!("app {:?} at {} has {claim} too", first.app.metadata.name, first.position());
            let hint = "let only one of them have it".to_owned();
            faults.push(document.fault(Problem { code, field, message, hint }));
        }
    }
    faults
}

/// What an app claims, in words, and the fields that say so.
fn claims(app: &App) -> Vec<(String, String, ErrorCode)> {
    let hostnames = app.spec.hostnames.iter().enumerate().map(|(i, name)| {
        (format!("the name {name}"), format!("spec.hostnames[{i}]"), ErrorCode::ServiceNameTaken)
    });
    let containers = app.spec.template.containers.iter().enumerate();
    let ports = containers.flat_map(|(i, container)| {
        container.ports.iter().enumerate().map(move |(j, port)| {
            let claim = format!("host port {}/{}", port.host_port, port.protocol.as_str());
            (claim, format!("spec.template.containers[{i}].ports[{j}]"), ErrorCode::PortPublished)
        })
    });
    hostnames.chain(ports).collect()
}

#[cfg(test)]
mod tests {
    use hivemind_manifest::{Options, Source, read_all};

    use super::*;

    #[test]
    fn two_apps_of_the_same_files_that_want_the_same_are_told() {
        let app = |name: &str, rest: &str, ports: &str| {
            format!(
                "apiVersion: hivemind/v1\nkind: App\nmetadata: {{name: {name}}}\nspec: {{{rest}template: {{containers: [{{image: a, ports: [{ports}]}}]}}}}\n---\n"
            )
        };
        let text = [
            app("a", "hostnames: [web.local], ", "{hostPort: 80, containerPort: 80}"),
            app("b", "", "{hostPort: 80, containerPort: 80, protocol: udp}"),
            app("c", "hostnames: [x.local, Web.local], ", "{hostPort: 80, containerPort: 8080}"),
        ]
        .concat();
        let options = Options { namespace: "default", only_this_namespace: false };
        let read = read_all(&[Source::new("x", text.into())], options, &|_| Vec::new());
        assert_eq!(read.faults, []);
        let told: Vec<_> = faults(&read.apps).iter().map(|f| (f.line, f.column, f.message.clone())).collect();
        assert_eq!(
            told,
            [
                (14, 29, "app \"a\" at x:1:1 has the name web.local too".to_owned()),
                (14, 84, "app \"a\" at x:1:1 has host port 80/tcp too".to_owned()),
            ]
        );
    }
}
