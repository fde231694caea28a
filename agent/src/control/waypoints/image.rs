//! Which image waypoints run: control's own.

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::{Api, Client};
use tokio::time;

use super::{Image, Settings, follow::RETRY};

/// The image that was named, or else that of the pod that this runs in; asked for until the API server says. None if
/// nobody names either.
pub(super) async fn image(client: &Client, settings: &Settings) -> Option<Image> {
    let Some(pod) = &settings.pod else {
        if settings.image.is_none() {
            tracing::warn!(
                "no waypoint can be made, for their image isn't known: set --waypoint-image or POD_NAME"
            );
        }
        return settings.image.clone().map(named);
    };
    let pods = Api::<Pod>::namespaced(client.clone(), &settings.namespace);
    let mut told = String::new();
    loop {
        let failure = match pods.get(pod).await {
            Ok(found) => {
                let own = of_pod(found.spec.unwrap_or_default());
                return match settings.image.clone() {
                    Some(name) => Some(Image {
                        pull_policy: None,
                        name,
                        ..own.unwrap_or_default()
                    }),
                    None => own,
                };
            }
            // Somebody has named an image, and who doesn't run in a pod has nothing else to tell.
            Err(_) if settings.image.is_some() => return settings.image.clone().map(named),
            Err(error) => error.to_string(),
        };
        if failure != told {
            tracing::warn!(
                "waypoints wait for control's own image: Pod {}/{pod}: {failure}",
                settings.namespace
            );
            told = failure;
        }
        time::sleep(RETRY).await;
    }
}

fn named(name: String) -> Image {
    Image {
        name,
        ..Image::default()
    }
}

/// The image of the container that has the role `control`.
fn of_pod(pod: PodSpec) -> Option<Image> {
    let is_ours = |args: &Option<Vec<String>>| {
        let mut args = args.iter().flatten();
        args.any(|arg| arg == "control")
    };
    let container = pod.containers.iter().find(|it| is_ours(&it.args));
    // Sidecars, which somebody may have injected, come after it.
    let container = container.or(pod.containers.first())?;
    let secrets = pod.image_pull_secrets.unwrap_or_default();
    Some(Image {
        name: container.image.clone()?,
        pull_policy: container.image_pull_policy.clone(),
        pull_secrets: secrets.into_iter().map(|secret| secret.name).collect(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_image_is_that_of_the_container_with_the_role() {
        let own = json!({ "name": "ambit", "args": ["control"], "image": "r.example/ambit:1" });
        let other = json!({ "name": "sidecar", "image": "other" });
        let mut always = own.clone();
        always["imagePullPolicy"] = json!("Always");
        let image = |name: &str, policy: Option<&str>, secrets: &[&str]| Image {
            name: name.into(),
            pull_policy: policy.map(str::to_owned),
            pull_secrets: secrets.iter().map(ToString::to_string).collect(),
        };
        let table = [
            (json!([own]), image("r.example/ambit:1", None, &["pull"])),
            (
                json!([other, always]),
                image("r.example/ambit:1", Some("Always"), &["pull"]),
            ),
            (json!([other]), image("other", None, &["pull"])),
        ];
        for (containers, expected) in table {
            let pod: Value =
                json!({ "containers": containers, "imagePullSecrets": [{ "name": "pull" }] });
            let pod = serde_json::from_value(pod).unwrap();
            assert_eq!(of_pod(pod), Some(expected), "{containers}");
        }
        assert_eq!(of_pod(PodSpec::default()), None);
    }
}
