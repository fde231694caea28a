//! The container of a waypoint's pod: its files, its environment, its user.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
};

use serde_json::Value;

use super::{Kubelet, fields::field};
use crate::{Child, Error, Pod, Result};

/// Where a pod finds its own account's token.
const OWN_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The audience of such a token.
const OWN_AUDIENCE: &str = "https://kubernetes.default.svc";
/// Mounts what the pod has at /var/run, in a mount namespace of its own, and becomes its user without any
/// capability, and with no variable but those named:
/// `program, user, (source, path)..., --, name=value..., arguments...`. No other process is in between.
const CONTAINER: &str = r#"set -e
program=$1 user=$2; shift 2
mount -t tmpfs tmpfs /var/run
touch /var/run/program; mount --bind "$program" /var/run/program
while [ "$1" != -- ]; do mkdir -p "$2"; mount --bind "$1" "$2"; shift 2; done
shift
exec setpriv --reuid "$user" --regid "$user" --clear-groups --inh-caps=-all --bounding-set=-all \
    --no-new-privs env -i "$@""#;
/// Where the program is then.
const PROGRAM: &str = "/var/run/program";

/// Names and contents.
type Files = Vec<(String, String)>;

impl Kubelet<'_> {
    /// Starts the container of a pod of this specification.
    pub(super) fn container(&self, pod: &Pod, spec: &Value) -> Result<Child> {
        let container = field(spec, "/containers/0", Some)?;
        let user = id(spec, "/securityContext/runAsUser")?;
        let group = id(spec, "/securityContext/fsGroup")?;
        let directory = self.lab.directory();
        let directory = directory.join(format!("kubelet-{}", pod.name()));
        let mut command = pod
            .command("unshare")
            .args(["--mount", "sh", "-c", CONTAINER, "sh"])
            .arg(self.ambit()?)
            .arg(user.to_string());
        for (path, files) in self.mounted(pod, spec)? {
            let source = directory.join(path.trim_start_matches('/'));
            for (name, content) in files {
                write(&source, &name, &content, group)?;
            }
            command = command.arg(source).arg(path);
        }
        command = command.arg("--");
        let address = pod.address().to_string();
        for variable in field(container, "/env", Value::as_array)? {
            let name = field(variable, "/name", Value::as_str)?;
            let value = value(variable, pod.node().name(), &address)?;
            command = command.arg(format!("{name}={value}"));
        }
        // Every container has those of the API server.
        let server = self.api.address();
        command = command
            .arg(format!("KUBERNETES_SERVICE_HOST={}", server.ip()))
            .arg(format!("KUBERNETES_SERVICE_PORT={}", server.port()))
            .arg(PROGRAM);
        for argument in field(container, "/args", Value::as_array)? {
            command = command.arg(field(argument, "", Value::as_str)?);
        }
        command.spawn()
    }

    /// What is mounted where: the volumes, and the token of its account.
    fn mounted(&self, pod: &Pod, spec: &Value) -> Result<Vec<(String, Files)>> {
        let account = field(spec, "/serviceAccountName", Value::as_str)?;
        let user = format!("system:serviceaccount:{}:{account}", self.namespace);
        let token = |audience: &str| {
            let bound = (pod.name(), pod.uid());
            self.api.token(&user, bound, pod.node().name(), &[audience])
        };
        let volumes = field(spec, "/volumes", Value::as_array)?;
        let mut mounted = Vec::new();
        for mount in field(spec, "/containers/0/volumeMounts", Value::as_array)? {
            let volume = volumes.iter().find(|it| it["name"] == mount["name"]);
            let volume = volume.unwrap_or(&Value::Null);
            let files = match volume["configMap"]["name"].as_str() {
                Some(name) => self.config_map(name)?,
                None => {
                    let projected = "/projected/sources/0/serviceAccountToken";
                    let projected = field(volume, projected, Some)?;
                    let audience = field(projected, "/audience", Value::as_str)?;
                    let path = field(projected, "/path", Value::as_str)?;
                    vec![(path.to_owned(), token(audience))]
                }
            };
            let path = field(mount, "/mountPath", Value::as_str)?;
            mounted.push((path.to_owned(), files));
        }
        if spec["automountServiceAccountToken"] == true {
            let authority = self.api.certificate_authority();
            let authority =
                fs::read_to_string(&authority).map_err(Error::path("read", &authority))?;
            let files = [
                ("token", token(OWN_AUDIENCE)),
                ("ca.crt", authority),
                ("namespace", self.namespace.clone()),
            ];
            let files = files.map(|(name, content)| (name.to_owned(), content));
            mounted.push((OWN_ACCOUNT.to_owned(), files.into()));
        }
        Ok(mounted)
    }

    fn config_map(&self, name: &str) -> Result<Files> {
        let map = self.object("ConfigMap", name)?;
        let mut files = Files::new();
        for (name, content) in field(&map, "/data", Value::as_object)? {
            let content = field(content, "", Value::as_str)?;
            files.push((name.clone(), content.to_owned()));
        }
        Ok(files)
    }
}

/// The value that a variable of a container has in a pod with this node and this address.
fn value<'a>(variable: &'a Value, node: &'a str, address: &'a str) -> Result<&'a str> {
    let source = &variable["valueFrom"];
    if source.is_null() {
        return field(variable, "/value", Value::as_str);
    }
    match field(source, "/fieldRef/fieldPath", Value::as_str)? {
        "spec.nodeName" => Ok(node),
        "status.podIP" => Ok(address),
        unknown => Err(Error::malformed(
            format!("variable {} of a waypoint", variable["name"]),
            format!("no kubelet of the lab knows {unknown}"),
        )),
    }
}

/// Of a user or a group.
fn id(spec: &Value, pointer: &str) -> Result<u32> {
    field(spec, pointer, |value| value.as_u64()?.try_into().ok())
}

/// Writes a file that only the group of the pod's volumes may read.
fn write(directory: &Path, name: &str, content: &str, group: u32) -> Result<()> {
    fs::create_dir_all(directory).map_err(Error::path("create", directory))?;
    let path = directory.join(name);
    fs::write(&path, content)
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o440)))
        .and_then(|()| chown(&path, None, Some(group)))
        .map_err(Error::path("write", &path))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_variable_is_a_value_or_a_field_of_the_pod() {
        let of = |field: &str| json!({ "fieldRef": { "apiVersion": "v1", "fieldPath": field } });
        for (variable, expected) in [
            (json!({ "name": "X", "value": "x" }), Some("x")),
            (
                json!({ "name": "X", "valueFrom": of("spec.nodeName") }),
                Some("b"),
            ),
            (
                json!({ "name": "X", "valueFrom": of("status.podIP") }),
                Some("10.1.0.2"),
            ),
            (
                json!({ "name": "X", "valueFrom": of("status.phase") }),
                None,
            ),
            (json!({ "name": "X", "valueFrom": {} }), None),
            (json!({ "name": "X" }), None),
        ] {
            let value = value(&variable, "b", "10.1.0.2");
            assert_eq!(value.as_ref().ok(), expected.as_ref(), "{variable}");
        }
    }
}
