//! Before the control plane goes: nobody will convert TrafficSplits between versions any more, and their definition stays
//! where it is kept, with the objects of users. It goes on with the version in which they are stored, alone, until an
//! installation brings the others back.

use gauze_crds::traffic_split;
use json_patch::jsonptr::PointerBuf;
use json_patch::{Patch, PatchOperation, RemoveOperation, ReplaceOperation, TestOperation};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition as Definition;
use kube::Client;
use kube::api::{self, Api, PatchParams};
use serde_json::{Value, json};

use super::{UninstallError, refused};

/// Not the control plane's field manager: what this one leaves as its own is taken back at once.
const MANAGER: &str = "gauze-uninstall";

/// Stops conversion, if this system namespace's control plane does it.
pub(super) async fn stop(client: &Client, system_namespace: &str) -> Result<(), UninstallError> {
    let name = traffic_split::NAME;
    let api: Api<Definition> = Api::all(client.clone());
    let definition =
        api.get_opt(name).await.map_err(refused("cannot read the definition of TrafficSplit"))?;
    let Some(patch) = definition.and_then(|definition| without_conversion(&definition, system_namespace))
    else {
        return Ok(());
    };
    let written = patched(&api, patch).await?;
    // Whoever installs next by server-side apply would meet a conflict with somebody who is gone.
    if let Some(patch) = without_manager(&written) {
        patched(&api, patch).await?;
    }
    println!(
        "stopped conversion of CustomResourceDefinition {name}; only {} is served",
        traffic_split::STORED
    );
    Ok(())
}

async fn patched(api: &Api<Definition>, patch: Patch) -> Result<Definition, UninstallError> {
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let patched = api.patch(traffic_split::NAME, &parameters, &api::Patch::<()>::Json(patch)).await;
    patched.map_err(refused("cannot stop the conversion of TrafficSplits"))
}

/// The version that is stored, alone and unconverted; nothing where somebody else converts, or nobody.
fn without_conversion(definition: &Definition, system_namespace: &str) -> Option<Patch> {
    let client = definition.spec.conversion.as_ref()?.webhook.as_ref()?.client_config.as_ref()?;
    if !traffic_split::converts(client, system_namespace) {
        return None;
    }
    let service = serde_json::to_value(&client.service).ok()?;
    let mut operations = vec![
        test(&["spec", "conversion", "webhook", "clientConfig", "service"], service),
        replace(&["spec", "conversion"], json!({ "strategy": "None" })),
    ];
    let versions = definition.spec.versions.iter().enumerate();
    for (index, version) in versions.filter(|(_, version)| version.served && !version.storage) {
        let index = index.to_string();
        operations.push(test(&["spec", "versions", &index, "name"], version.name.clone().into()));
        operations.push(replace(&["spec", "versions", &index, "served"], false.into()));
    }
    Some(Patch(operations))
}

fn without_manager(definition: &Definition) -> Option<Patch> {
    let managers = definition.metadata.managed_fields.as_ref()?;
    let index = managers.iter().position(|entry| entry.manager.as_deref() == Some(MANAGER))?.to_string();
    let at = ["metadata", "managedFields", index.as_str()];
    let remove = RemoveOperation { path: PointerBuf::from_tokens(at) };
    let test = test(&[&at[..], &["manager"]].concat(), MANAGER.into());
    Some(Patch(vec![test, PatchOperation::Remove(remove)]))
}

fn test(path: &[&str], value: Value) -> PatchOperation {
    PatchOperation::Test(TestOperation { path: PointerBuf::from_tokens(path.iter().copied()), value })
}

fn replace(path: &[&str], value: Value) -> PatchOperation {
    PatchOperation::Replace(ReplaceOperation { path: PointerBuf::from_tokens(path.iter().copied()), value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_version_that_is_stored_stays_and_nobody_is_asked_to_convert() {
        let definition = traffic_split::definition("gauze-system");
        let mut value = json!(definition);
        let patch = without_conversion(&definition, "gauze-system").unwrap();
        json_patch::patch(&mut value, &patch).unwrap();
        assert_eq!(value["spec"]["conversion"], json!({ "strategy": "None" }));
        let versions = value["spec"]["versions"].as_array().unwrap().iter();
        let served: Vec<&Value> =
            versions.filter(|version| version["served"] == true).map(|version| &version["name"]).collect();
        assert_eq!(served, ["v1alpha4"]);
        let stopped: Definition = serde_json::from_value(value).unwrap();
        assert_eq!(without_conversion(&stopped, "gauze-system"), None, "it can be run again");
    }

    #[test]
    fn a_definition_that_another_mesh_converts_is_left_alone() {
        assert_eq!(without_conversion(&traffic_split::definition("another-mesh"), "gauze-system"), None);
    }
}
