//! The rows of the register. A row is: name, code, then for a refusal `=> flag status` (and, where Envoy's
//! mapping of the status does not tell a gRPC client what happened, `grpc` and a gRPC status), title, cause, remedy.

use super::{Code, Entry, grpc_status};

/// Makes of each row a constant of [`Code`] and an [`Entry`], so that the two cannot drift apart.
macro_rules! register {
    ($($name:ident $code:literal $(=> $flag:literal $status:literal $(grpc $grpc:literal)?)?, $title:literal, $cause:literal, $remedy:literal;)*) => {
        impl Code {
            $(#[doc = $title] pub const $name: Code = Code($code);)*
        }

        pub(super) const ENTRIES: &[Entry] = &[$(Entry {
            code: Code::$name,
            title: $title,
            cause: $cause,
            remedy: $remedy,
            ..answered(0 $(+ $status)?, 0 $($(+ $grpc)?)?, concat!("" $(, $flag)?))
        }),*];
    };
}

/// `grpc` is 0 where the status tells it.
const fn answered(status: u16, grpc: u8, flag: &'static str) -> Entry {
    let grpc = if status == 0 || grpc != 0 { grpc } else { grpc_status(status) };
    Entry { code: Code(0), title: "", cause: "", remedy: "", flag, status, grpc }
}

register! {
// M10: what the user wrote.
OBJECT_UNREADABLE 1001, "The file or object cannot be read",
    "It is not valid YAML, or it is not a Kubernetes object with `apiVersion`, `kind` and `metadata.name`. What was last read of it stays in force.",
    "Correct it at the line that the message names; other files and objects are not affected.";
UNKNOWN_FIELD 1002, "The object has a field that its kind does not have",
    "The field is misspelt, stands at the wrong depth, or belongs to another version of the kind. It has no effect.",
    "Compare the path in the message with the schema of the kind, and correct or remove the field.";
WRONG_TYPE 1003, "A field has a value of the wrong type",
    "The schema of the kind asks for another type there, for example a number in place of a string.",
    "Correct the value at the path in the message; a number that is meant as a string needs quotes.";
UNKNOWN_KIND 1004, "The kind or its version is not read",
    "What is read: Service, EndpointSlice, Pod, ServiceAccount, Namespace, HTTPRoute, GRPCRoute, TLSRoute, TrafficSplit, HTTPRouteGroup and the kinds of gauze.dev. This object is none of them, or of a version that is not served.",
    "Correct `apiVersion` and `kind`, or keep the object out of the directory.";
MISSING_FIELD 1005, "A required field is missing",
    "The kind cannot be understood without this field.",
    "Add the field at the path in the message.";
INVALID_VALUE 1006, "A value is outside what the field allows",
    "The value has the right type, but not a meaning: it is out of range, empty, or not of the form that the field asks for.",
    "Correct the value at the path in the message, which also says what is allowed.";
DUPLICATE_OBJECT 1007, "The object is defined twice",
    "Two documents of the directory have the same kind, namespace and name. The first by file name and position counts.",
    "Remove or rename one of the two.";
ADDRESS_SHARED 1008, "Two objects claim the same address",
    "Two Services have the same ClusterIP, or two pods the same address. A connection to it can lead to one of them only: the oldest, then the first by name.",
    "Give each its own address; in a cluster this heals when the older of the two is gone.";
OUTSIDE_MESH_NETWORKS 1009, "An address of the mesh lies outside the mesh networks",
    "Proxies ask the control plane only about addresses inside the mesh networks. Connections to this Service or pod pass by the mesh: without identity, routes and splits.",
    "Add its network to the mesh networks.";
CHANGE_NOT_SEEN 1010, "The directory cannot be watched",
    "The operating system refuses to report changes of files there, so the directory is read again at intervals.",
    "Raise the limit that the message names (on Linux usually `fs.inotify.max_user_watches`).";
ENDPOINT_WITHOUT_POD 1011, "An endpoint names a pod that is not there",
    "The EndpointSlice refers to a Pod that is not known, has ended, or has another address. It is not used: whether it must be dialled with mesh TLS is not known.",
    "In a cluster this heals by itself. In a directory, write the Pod with its address in `status.podIPs`, or remove the endpoint's `targetRef` if it is not a pod.";
API_SERVER_AWAY 1012, "The Kubernetes API server cannot be reached",
    "No object can be watched. The control plane goes on with what it last read: endpoints and routes that change meanwhile are not seen, and pods that start meanwhile get no identity.",
    "Look whether the API server runs, and whether a network policy or firewall stands between. What was missed is read at once when it is back.";
KIND_NOT_WATCHED 1013, "Objects of one kind cannot be watched",
    "The API server refuses the watch, or breaks it off again and again. What was last read of this kind stays in force; at start the control plane waits for it.",
    "The message names the reason. If it is `forbidden`, compare the ClusterRole with that of the chart.";

// M11: first contact and certificates.
TOKEN_MISSING 1101, "A certificate was asked for without a token",
    "The request carried no bearer token, so nobody can say who asks.",
    "Mount the workload's token and give the proxy its path with `--token`.";
TOKEN_REFUSED 1102, "The workload's token was refused",
    "The token is expired, is not for the audience `gauze`, or was not signed by the authority of this mesh.",
    "Let the token be projected anew; after a restored backup or another cluster's token, restart the pod.";
TOKEN_POD_UNKNOWN 1103, "The token is for a pod that the control plane does not know",
    "No pod of that name, namespace and ServiceAccount exists, or the control plane has not seen it yet.",
    "Nothing if the pod is new: the proxy asks again. Otherwise compare pod and ServiceAccount with the token's.";
REQUEST_FOR_CERTIFICATE_REFUSED 1104, "The request for a certificate cannot be used",
    "The certificate signing request is unreadable, its signature does not fit its key, or the key is of a kind that the authority does not sign.",
    "Proxies of gauze make P-256 keys; let other clients do the same.";
AUTHORITY_UNAVAILABLE 1105, "The authority issues no certificate",
    "The authority cannot be reached or failed. Certificates that were issued stay valid until they expire.",
    "Look at the log of the control plane; the proxy asks again, at the latest well before its certificate expires.";
ROOT_UNREADABLE 1106, "The root key or certificate cannot be read",
    "The files of the root are damaged, do not fit each other, or may not be read. No other root is made in their place, since all certificates in use chain to this one.",
    "Restore the files from a backup; only where no proxy runs any more, remove both and let a new root be made.";
TOKEN_NOT_REVIEWED 1107, "The API server cannot be asked about a token",
    "Whether a token is good is for the API server to say (TokenReview). It cannot be reached, does not answer in time, or does not let the control plane ask. No certificate is issued meanwhile; those that were issued stay valid.",
    "Nothing if the API server is away: the proxy asks again. Otherwise look whether the control plane's ServiceAccount may `create tokenreviews.authentication.k8s.io`.";
TOKEN_POD_NOT_MESHED 1108, "The token is for a pod without sidecar",
    "The token is good, but its pod does not hold our sidecar (the init container `gauze-proxy` with `restartPolicy: Always`). Only pods of the mesh get an identity in it.",
    "Let the pod be injected: label it, or its namespace, `gauze.dev/inject: enabled`, and restart it.";
ROOT_SECRET_UNUSABLE 1109, "The Secret of the root cannot be used",
    "The Secret has no `tls.crt` or `tls.key`, they do not fit each other, have expired, or the certificate is not one of an authority. No other root is made in its place, since all certificates in use chain to it. The control plane is not ready and looks again every few seconds.",
    "Correct the Secret that the message names, or restore it from a backup; only where no proxy runs any more, delete it and let a new root be made.";
ROOT_SECRET_MISSING 1110, "The Secret of the root is not there",
    "The control plane was told that the Secret exists (`--root-secret-exists`), so it makes none; or it waits for the leading replica to make it; or it may not read it.",
    "Create the Secret (type `kubernetes.io/tls`, keys `tls.crt` and `tls.key`) under the name in the message, or let gauze make one. If the message says `forbidden`, compare the control plane's Role with the chart's.";
ROOT_SECRET_CHANGED 1111, "The Secret of the root is no longer what the replica has read",
    "Somebody changed the Secret while the control plane runs. This replica goes on with the root that it has read, so that all replicas and proxies still trust each other.",
    "Restore the Secret. A new root is not rolled out by changing the Secret: proxies would not trust each other until all of them are restarted.";
ROOTS_NOT_WRITTEN 1112, "The ConfigMap `gauze-trust` cannot be written",
    "Injected pods mount the roots from this ConfigMap of their namespace; without it they do not start. The API server refused the write or did not answer.",
    "The message says why. If it is `forbidden`, compare the control plane's ClusterRole with the chart's; if the ConfigMap is immutable, delete it, and it is written anew.";

// M12: the wire between control plane and proxies.
POD_REFUSED 1201, "A proxy claims to be a pod that is not its own",
    "The pod that the proxy names is not known under the namespace and ServiceAccount of its certificate.",
    "Compare `--pod`, `--namespace` and `--service-account` of the proxy with the pod. If they fit, the pod was deleted.";
NAME_RESERVED 1202, "A proxy asks for configuration of another namespace",
    "The name of the resource is reserved for a namespace, or a pod, that is not the one in the proxy's certificate. The stream is ended.",
    "A proxy of gauze never does this with settings that fit its pod: compare them, and look who else holds the certificate.";
NAME_UNREADABLE 1203, "A proxy asks for a name that is none",
    "The name is of none of the forms that the control plane serves; no such resource will ever exist.",
    "Compare the versions of proxy and control plane.";
CONFIGURATION_REFUSED 1204, "A proxy refused configuration",
    "The proxy named what it cannot use. It goes on with the last version that it accepted.",
    "The message names the field behind it in your object. If the object is right, the proxy is older than the feature: update it.";
FEATURE_REQUIRED 1205, "A proxy is too old for this configuration",
    "The configuration needs a feature that the proxy does not have. The proxy refuses it whole and goes on with the last one.",
    "Restart the pod, so that it is injected with a newer proxy.";
CONFIGURATION_UNSUPPORTED 1206, "Configuration on the wire has a field that is not supported",
    "Another xDS server set a field of Envoy's that gauze does not implement; ignoring it would change the meaning.",
    "Remove the field from the configuration that the server makes for this proxy.";
CONTROL_PLANE_UNREACHABLE 1207, "The control plane cannot be reached",
    "The stream to the control plane ended and was not opened again yet. Everything in use goes on as it was last told.",
    "Look whether the control plane runs, and whether its address and port can be dialled from the pod.";
CONTROL_PLANE_IDENTITY 1208, "The server is not the control plane of this mesh",
    "What answers at the control plane's address has no certificate of this mesh's roots, or another identity than the control plane's.",
    "Compare `--trust-roots`, `--trust-domain` and `--system-namespace` of the proxy with the control plane's.";

// M13: what `gauze check` finds in a cluster and in what is installed there.
KUBERNETES_TOO_OLD 1301, "The cluster's Kubernetes is too old",
    "Injected pods need native sidecars (init containers with `restartPolicy: Always`), which are on by default since Kubernetes 1.30.",
    "Upgrade the cluster to Kubernetes 1.30 or later.";
PERMISSION_MISSING 1302, "You may not do what this command needs",
    "The API server does not let your user read, or create, what the message names. What depends on it was not looked at.",
    "Use a context of an administrator, or let one grant you what the message names.";
DEFINITION_MISSING 1303, "A kind of gauze is not defined in the cluster",
    "The CustomResourceDefinition is not there, or does not serve the version that gauze reads. Objects of that kind have no effect.",
    "Upgrade the chart with `crds.enabled: true` (and `crds.smi: true` for TrafficSplit), or install the files of `crds/yaml`.";
DEFINITION_OTHER_VERSION 1304, "A kind is defined by another release than the control plane's",
    "The CustomResourceDefinition was installed by another release of the chart, so its schema may lack fields or hold others.",
    "Upgrade the chart with `crds.enabled: true`, so that definitions and control plane are of one release.";
NOT_INSTALLED 1305, "The control plane is not installed there",
    "There is no Deployment `gauze-control-plane` in the system namespace.",
    "Install the chart, or name the namespace with `--system-namespace`.";
REPLICAS_NOT_READY 1306, "Replicas of the control plane are not ready",
    "A replica is ready when it has read all objects, is up to date and has the root at hand. What proxies know stays in force meanwhile; without any replica, pods that ask for a sidecar are not created.",
    "Look at the pods of the Deployment `gauze-control-plane`: their events and their log.";
NO_LEADER 1307, "No replica of the control plane leads",
    "Nobody holds the Lease `gauze-control-plane`, or a pod holds it that is not there. Nobody writes trust roots into new namespaces meanwhile; traffic, certificates and injection go on.",
    "Wait 15 s for an election. If it stays, look at the log of the control plane for what it may not do with Leases.";
ROOT_ENDS 1308, "The root certificate of the mesh ends soon",
    "All certificates of the mesh chain to the root; once it has ended, no connection between its pods is accepted.",
    "Bring in a new root before that day: old and new are trusted side by side until all sidecars have certificates of the new one.";
OWN_CERTIFICATE_NOT_RENEWED 1309, "The control plane does not renew its own certificate",
    "Its certificate is renewed at half of its life, and this one is nearly over. Once it has ended, proxies and the API server refuse the control plane.",
    "Look at the log of the control plane for M11 codes, and at the clock of its node.";
WEBHOOK_MISSING 1310, "The injection webhook is not configured",
    "There is no MutatingWebhookConfiguration `gauze-injector`, so no pod gets a sidecar.",
    "Upgrade the chart, which brings it back.";
WEBHOOK_ROOTS_DIFFER 1311, "The API server does not trust a webhook of the control plane",
    "The `caBundle` of the injection webhook's configuration, or of the definition of TrafficSplit, is empty, or is not the set of roots of the mesh. Pods that ask for a sidecar are not created, or TrafficSplits cannot be read and written in older versions than v1alpha4.",
    "The leader of the control plane writes it within seconds; if it stays, look at its log for what it may not do with webhook configurations and definitions. A definition that names a Service of another namespace than the control plane's is left alone: upgrade the chart.";
WEBHOOK_IGNORES_FAILURES 1312, "Pods are created without a sidecar while the webhook does not answer",
    "The failure policy of the injection webhook is not `Fail`: a pod that asks for a sidecar while the control plane is away starts outside the mesh.",
    "Set `injector.failurePolicy: Fail` in the chart's values: only pods that ask are concerned.";
TRUST_MISSING 1313, "The roots of the mesh are missing in a namespace",
    "The ConfigMap `gauze-trust` is not there, or its roots are not those of the mesh. Injected pods mount it: without it they do not start.",
    "The leader of the control plane writes it within seconds; if it stays, look at its log for what it may not do with ConfigMaps.";
SOCKET_LOAD_BALANCING 1314, "Cilium hides ClusterIPs from the sidecars",
    "Cilium replaces a Service's address by a pod's inside the app's own `connect`, so the sidecar never sees which Service was dialled: no routes, no splits.",
    "Set Cilium's `socketLB.hostNamespaceOnly: true` (in `cilium-config`: `bpf-lb-sock-hostns-only: \"true\"`) and restart its agents.";
REPLICA_SILENT 1315, "A replica of the control plane cannot be asked",
    "Its program was to be run in its pod (`pods/exec`) and gave no answer, so what it knows is missing in the result.",
    "The message says why: usually a permission that you lack, or a node whose kubelet the API server cannot reach.";

// M20: injection of a pod, and what else the API server asks of a webhook.
INJECT_VALUE_UNKNOWN 2001, "The value of `gauze.dev/inject` is not understood",
    "The label or annotation is there, so the pod asks for something, and its value is neither `enabled` nor `disabled`. A pod is refused; a namespace counts as not labelled.",
    "Write `enabled` or `disabled`.";
INJECT_VALUES_DISAGREE 2002, "Label and annotation `gauze.dev/inject` disagree",
    "The pod has both, with different values. The label counts, since the API server can select by labels alone.",
    "Remove the annotation.";
ANNOTATION_INVALID 2003, "An annotation of the pod cannot be read",
    "The pod asks for injection, and an annotation that changes how it is injected has a value that means nothing. A guess could open a port or close one, so the pod is refused.",
    "The message names the key and what to write; correct it in the pod's template.";
PROXY_USER_TAKEN 2004, "A container runs as the user of the proxy",
    "The redirect leaves connections of UID 1337 alone, or the proxy's own would come back to it. A container of that user would pass by the mesh: without identity, encryption and policy.",
    "Let the container run as another user.";
PROXY_NAME_TAKEN 2005, "The pod uses a name of the sidecar for something else",
    "A container is called `gauze-proxy` or `gauze-redirect`, or a volume `gauze-identity` or `gauze-admin`, and gauze did not put it there.",
    "Rename it.";
PROXY_PORT_TAKEN 2006, "A container declares a port of the proxy",
    "The ports 15000, 15001, 15006 and 15020 belong to the proxy, which shares the pod's network with the app. One of the two could not listen.",
    "Let the app listen on another port.";
HOST_NETWORK 2007, "A pod on its node's network is not injected",
    "The pod asks for injection and has `hostNetwork: true`. Its network is the node's, where a redirect would catch the traffic of all others.",
    "Remove `hostNetwork`, or the label or annotation `gauze.dev/inject` from the pod.";
WINDOWS_POD 2008, "A Windows pod is not injected",
    "The pod asks for injection and is for Windows nodes (`spec.os.name`), where there is neither the redirect nor a proxy of gauze.",
    "Remove the label or annotation `gauze.dev/inject` from the pod.";
PROCESSES_SHARED 2009, "The app can see the processes of the sidecar",
    "The pod has `shareProcessNamespace: true`. A container that runs as root or as UID 1337 can signal the proxy and read its memory, and with it the pod's key.",
    "Nothing, if all containers of the pod are trusted alike; otherwise remove the field.";
CLUSTER_DNS_UNUSED 2010, "The sidecar may not find the control plane by name",
    "The pod's `dnsPolicy` is `Default` or `None`, so names of the cluster may not resolve in it. A sidecar that cannot reach the control plane is not ready, and the app does not start.",
    "Use `ClusterFirst`, or let `dnsConfig` name the cluster's DNS and search domains.";
PROBE_PORT_UNKNOWN 2011, "A probe or hook names a port that its container does not declare",
    "The port is a name, and no port of the container has it, so neither kubelet nor gauze knows what to ask. It is left as it is, and kubelet reports the failure.",
    "Correct the name, or write the number of the port.";
ADMISSION_UNREADABLE 2012, "The injection webhook was asked something that it cannot read",
    "What came is no AdmissionReview of version v1 about a pod that is created. The API server treats it as a failure of the webhook.",
    "Compare the MutatingWebhookConfiguration with the chart's: rules, `admissionReviewVersions` and paths.";
BUNDLE_NOT_WRITTEN 2013, "The API server cannot be told by whom it knows the webhook",
    "The `caBundle` of the MutatingWebhookConfiguration, or of the definition of TrafficSplit, could not be read or written. Until it is there, pods that ask for a sidecar are refused, or TrafficSplits cannot be read and written in older versions than v1alpha4.",
    "The message names the reason: the object is missing (install the chart), has another name (`--webhook-configuration`), or may not be changed (RBAC).";
INJECT_MISPLACED 2014, "The key `gauze.dev/inject` stands where it has no effect",
    "Pods are made from an object's template, and this label or annotation is the object's own; or it is an annotation of a namespace, by which the API server cannot select.",
    "Write it into the `metadata` of the pod template, or as a label of the namespace.";
STATIC_POD 2015, "A static pod is not injected",
    "The pod asks for injection, and kubelet runs it from a file on the node. What the API server has is a mirror: a sidecar there would never run.",
    "Put the sidecar into the file with `gauze inject`, or run the pod as a DaemonSet.";
CONVERSION_FAILED 2016, "A TrafficSplit cannot be converted to another version of SMI",
    "A client asked for a TrafficSplit in another version than the one in which it is stored or was written, and a value of it means nothing; or what came is no ConversionReview of version v1. Objects that are stored stay as they are, and traffic is not concerned.",
    "The message names the object and the field; correct it. If it names none, compare `spec.conversion` of the CustomResourceDefinition with the chart's.";

// M21: what `gauze check` finds of pods.
SIDECAR_MISSING 2101, "A pod should have a sidecar and has none",
    "The pod or its namespace asks for one. The pod was created before that, or while injection was not in force; a running pod never gets one.",
    "Let its owner make a new pod: `kubectl rollout restart` of its Deployment, StatefulSet or DaemonSet.";
SIDECAR_OLD 2102, "A sidecar is older than the control plane",
    "The pod was injected by an older release. It works: a control plane serves sidecars of its own and of the three minor releases before.",
    "Restart the workload when it suits you: `kubectl rollout restart`.";
SIDECAR_TOO_OLD 2103, "A sidecar is too old for the control plane",
    "A control plane serves sidecars of its own and of the three minor releases before it; what it sends to older ones may be refused.",
    "Restart the workload: `kubectl rollout restart`.";
POD_SECURITY_FORBIDS_REDIRECT 2104, "The namespace's pod security forbids the redirect step",
    "An injected pod has an init container with the capability NET_ADMIN, which the Pod Security levels `baseline` and `restricted` forbid. Pods that ask for a sidecar are not created there.",
    "Label the namespace `pod-security.kubernetes.io/enforce: privileged`; of your own containers nothing more than before is needed.";
SIDECAR_LEFT_BEHIND 2105, "A pod has a sidecar and there is no control plane",
    "The mesh was uninstalled, and pods keep their sidecars until they are made anew. They go on with what they know until their certificates end.",
    "Restart the workloads: `kubectl rollout restart`. Without the webhook their new pods have no sidecar.";
SIDECAR_NOT_CONNECTED 2106, "A sidecar is not connected to the control plane",
    "The pod runs, and no replica has an open stream of its sidecar. It goes on with what it knows, and learns of no change.",
    "Look at its log (`gauze proxy log POD`) for M11 and M12 codes, and whether network policies let it reach the control plane's port 15012.";

// M30: a request that cannot be sent on.
NO_ROUTE 3001 => "NR" 404, "No route matches the request",
    "The Service that was dialled has routes, and no rule of them matches host, path, method, headers and query.",
    "`gauze explain FROM METHOD URL` tells which rules came close; add a rule, or widen one.";
NO_BACKEND 3002 => "" 500 grpc 14, "The rule has no backend that can be used",
    "The rule names no backend, all weights are 0, or one of its filters or fields cannot be applied. A gRPC client is told `UNAVAILABLE`.",
    "Look at the conditions of the route or split that the message names.";
NO_ENDPOINT 3003 => "UH" 503, "The backend has no endpoint",
    "The Service is known, and no pod of it is ready.",
    "Look at the pods behind the Service and at their readiness; `gauze proxy clusters` shows what the proxy sees.";
CLUSTER_UNKNOWN 3004 => "NC" 500 grpc 14, "The backend is not known to the proxy",
    "A rule names a backend that the control plane says does not exist.",
    "Look at `ResolvedRefs` in the status of the route or split; if the Service exists, look whether the control plane is up to date.";
CONNECT_FAILED 3005 => "UF" 503, "The endpoint refused the connection",
    "Nothing listens at the address of the endpoint, or the network does not lead there. Nothing was sent.",
    "Look whether the app listens on the Service's `targetPort`, on the pod's address and not on localhost only.";
CONNECT_TIMEOUT 3006 => "UF" 503, "The endpoint did not answer the connection in time",
    "No connection was made within the connect timeout. Nothing was sent.",
    "Look whether the node and the pod are alive, and whether a network policy drops the packets.";
UPSTREAM_TLS 3007 => "UF" 503, "No mesh TLS with the endpoint",
    "The endpoint is in the mesh, and the TLS handshake with its proxy failed. It is never dialled in plaintext instead.",
    "The log of both proxies names the reason: expired certificate, other roots, or something else than a proxy at that port.";
UPSTREAM_IDENTITY 3008 => "UF" 503, "The endpoint is not who it should be",
    "What answered has a valid certificate with another identity than the one that the control plane named for this address.",
    "Usually an address was used again by another pod, which heals within moments. If it stays, find out what runs at this address.";
NO_CERTIFICATE 3009 => "UF" 503, "The proxy has no certificate yet",
    "The proxy could not get a certificate, or its last one expired; it never dials a mesh endpoint without one.",
    "Look at the proxy's log for M11 codes, and whether the control plane can be reached.";
UPSTREAM_RESET 3010 => "UC" 503, "The endpoint ended the connection before it answered",
    "The connection or stream was reset after the request was sent, wholly or in part.",
    "Look at the app for crashes and restarts, and whether its keep-alive is shorter than the proxy's idle time-out.";
UPSTREAM_PROTOCOL 3011 => "UPE" 502, "The endpoint's answer is not valid HTTP",
    "The answer breaks the rules of HTTP/1 or HTTP/2, or its head is larger than the limits.",
    "The log names the rule. If the port does not speak HTTP, declare it with `appProtocol`.";
APP_UNREACHABLE 3012 => "UF" 503, "The app of this pod does not accept connections",
    "The proxy of the called pod could not connect to its own app. The request was not delivered.",
    "Look whether the app runs and listens on the pod's address at this port, and not on localhost only.";
STREAM_IDLE 3013 => "SI" 504, "The request was idle for too long",
    "Neither side sent anything on this request within the stream idle time-out.",
    "Let the app send something now and then, or raise the time-out for streams that are silent by design.";
UNKNOWN_DESTINATION 3014 => "NC" 503, "Nobody could say where this address leads",
    "The address lies inside the mesh networks and was never asked for before, and the control plane did not answer within 2 s. It is not sent in plaintext on a guess.",
    "Look whether the control plane runs and can be reached; what the proxy already knows goes on meanwhile.";
NOT_CONFIGURED 3015 => "NC" 503, "The proxy was not told yet how to accept",
    "The proxy has no inbound configuration for its pod, so it lets nothing in and is not ready.",
    "Look whether the control plane can be reached and knows this pod; the proxy's log names the reason.";
NOW_MESHED 3016, "A connection was closed because its address is in the mesh now",
    "The connection was opened while nobody knew its address, and passed in plaintext. The control plane says now that it must be mesh TLS.",
    "Nothing: the app connects again, and then with identity.";
REQUEST_TIMEOUT 3017 => "UT" 504 grpc 4, "The request took longer than it may",
    "The time that the route allows (`timeouts.request`) was over before the response had ended. All tries share it. What the app did meanwhile is not known.",
    "Look at the duration of the calls that this one waits for; raise the timeout if the app may take that long.";
TRY_TIMEOUT 3018 => "UT" 504 grpc 4, "The endpoint did not begin to answer in time",
    "The last try got no response within the timeout of a try (`perTryTimeout`, `timeouts.backendRequest`). What the app did meanwhile is not known.",
    "Look why the endpoint in the access log is slow; raise the timeout if the app may take that long.";
STREAM_REFUSED 3019 => "UR" 503, "The endpoint refused the request before it looked at it",
    "The endpoint reset the stream with REFUSED_STREAM, or named a lower last stream in its GOAWAY: it had no room, or was ending. The request was not processed.",
    "Nothing, if an endpoint was ending: the request is sent to another one while the retry policy and budget allow. If it stays, the app takes fewer streams at once than it is sent.";
CALL_DEADLINE 3020 => "UT" 504 grpc 4, "The call took longer than its client allows",
    "A gRPC client says with each call how long it waits (`grpc-timeout`), and this time was over. It counts over all hops: what earlier ones took is missing here.",
    "Look at the duration of the calls that this one waits for; raise the deadline in the client that began the chain.";
APP_REFUSED 3021 => "UR" 503, "The app refused the request before it looked at it",
    "The app of this pod closed the connection, or refused the stream, before it took a byte of the request. The request was not delivered.",
    "Nothing, if the app was ending: the caller's proxy sends the request to another endpoint. If it stays, look at the app's limits on connections and streams.";
NO_EXTENDED_CONNECT 3022 => "UPE" 501, "The endpoint does not open tunnels over HTTP/2",
    "The client asks by extended CONNECT (RFC 8441, WebSocket over HTTP/2), and the endpoint does not offer that in its SETTINGS, or speaks HTTP/1.",
    "Let the app offer it (SETTINGS_ENABLE_CONNECT_PROTOCOL), or let the client use WebSocket over HTTP/1.1.";
NO_TLS_ROUTE 3030 => "NR" 404, "No TLSRoute is for the server name",
    "The Service port has TLSRoutes, which decide alone where its TLS connections go, and none of them is for the server name that the ClientHello asks for, or it asks for none. The connection was closed.",
    "`gauze explain WORKLOAD - https://NAME:PORT --server-name …` shows which route is for which name. Add the name to a route's `hostnames`, or correct what the client asks for.";
INTERNAL 3099 => "" 500, "The proxy made a mistake",
    "Something happened that the proxy holds impossible.",
    "Please report it with the proxy's log and `gauze version`.";

// M31: a request that the proxy cannot take.
BAD_REQUEST 3101 => "DPE" 400, "The request is not valid HTTP",
    "The head of the request breaks the rules of HTTP/1.1 or HTTP/2 in a way that could be read in two ways.",
    "The message names the rule; correct the client.";
AMBIGUOUS_LENGTH 3102 => "DPE" 400, "The length of the request's body is ambiguous",
    "Content-Length is given more than once, is not a number, or stands beside Transfer-Encoding. Two servers could disagree on where the request ends.",
    "Let the client send exactly one of them. A client that sends both may be an attack (request smuggling).";
BAD_HOST 3103 => "DPE" 400, "The request's host is missing or ambiguous",
    "HTTP/1.1 asks for exactly one Host, of a valid form, and equal to the host of the target if that names one.",
    "Correct the client.";
BAD_BODY 3104 => "DPE" 400, "The request's body is not validly framed",
    "The chunks or trailers of the body break the rules of RFC 9112, or exceed their limits.",
    "The message names the rule; correct the client.";
URI_TOO_LONG 3105 => "DPE" 414, "The request's URI is too long",
    "The URI exceeds the proxy's limit.",
    "Send the data in the body, or raise the limit.";
HEADERS_TOO_LARGE 3106 => "DPE" 431, "The request's headers are too large or too many",
    "The head of the request exceeds the proxy's limit of bytes or of headers. Large cookies are the usual reason.",
    "Send less, or raise the limit.";
TRANSFER_CODING_UNKNOWN 3107 => "DPE" 501, "The request has an unknown transfer coding",
    "The only transfer coding that is accepted is `chunked`, once.",
    "Compress with Content-Encoding in place of Transfer-Encoding.";
VERSION_NOT_SUPPORTED 3108 => "DPE" 505, "The request's HTTP version is not supported",
    "HTTP/1.0, HTTP/1.1 and HTTP/2 are spoken.",
    "Correct the client. HTTP/2 in plaintext must begin with its connection preface.";
HEADER_TIMEOUT 3110 => "" 408, "The request's head did not arrive in time",
    "The client began a request and did not finish its head within the header time-out.",
    "Look at the client and the network between; an attack with slow clients looks the same.";
REQUEST_IDLE 3111 => "SI" 408, "The client stopped sending the request's body",
    "No byte of the body came within the stream idle time-out.",
    "Look at the client and the network between.";
HTTP2_BREACH 3112, "The client broke the rules of HTTP/2",
    "It sent frames that RFC 9113 does not permit, or so many that only cost (streams that it resets at once, CONTINUATION without end). Its connection was ended with GOAWAY.",
    "The log names the client's address and the reason. Look at the client; an attack looks the same.";
CLIENT_HELLO_UNREADABLE 3120 => "DPE" 400, "The server name of a TLS connection cannot be read",
    "The Service port has TLSRoutes, and the ClientHello is longer than 64 KiB, ends in the middle, contradicts itself or asks for several names: whom it asks for could be read in two ways. The connection was closed.",
    "The detail says what is wrong. Look at the client: no TLS library sends this. Where the bytes only look like TLS, declare the port `tcp`.";

// M32: limits.
TOO_MANY_CONNECTIONS 3201 => "UO" 503, "The backend has too many connections",
    "The proxy has as many connections to this backend as its limit allows, and none of them is free.",
    "Raise `limits.connections` in the TrafficPolicy if the backend can take more; otherwise add endpoints.";
TOO_MANY_PENDING 3202 => "UO" 503, "Too many requests wait for a connection to the backend",
    "As many requests wait as the limit allows. More waiting would only make all of them slow.",
    "Raise `limits.pending` in the TrafficPolicy for short bursts; otherwise add endpoints.";
TOO_MANY_REQUESTS 3203 => "UO" 503, "The backend has too many requests in flight",
    "As many requests of this proxy are in flight to the backend as the limit allows.",
    "Raise `limits.requests` in the TrafficPolicy if the backend can take more; otherwise add endpoints.";
TOO_MANY_CLIENTS 3204 => "" 503, "The proxy has too many connections open",
    "The proxy has accepted as many connections as its own limit, or that of its open files, allows.",
    "Look for clients that open connections without closing them; otherwise raise the limit.";
TOO_MANY_NAMES 3205, "The app dials too many destinations",
    "The proxy keeps as many destinations as its limit allows; the one that was unused for longest was given up, and is asked for again at its next use.",
    "Nothing, if the app dials so many by design. A scan of addresses looks the same.";
RETRY_BUDGET_EXHAUSTED 3206, "The retry budget is exhausted",
    "A request could have been tried again, but retries to this backend already make up the share of its requests that the budget allows. What the last try brought went back to the client; its line of the access log has the flag UO and `retry_stop: budget`.",
    "Look why so many requests to the backend fail: more retries would only add to its load. The budget is `retryBudget` of the TrafficPolicy.";

// M33: where a proxy does not connect.
OWN_PORT 3301 => "" 503, "The proxy's own port was dialled",
    "The destination is a port of the proxy itself (15000, 15001, 15006, 15020). Connecting would loop, or reach the admin port.",
    "Dial the app's port. For metrics and probes dial 15020 of the pod, which is not redirected.";
NOT_OWN_ADDRESS 3302 => "" 503, "The destination is not this pod",
    "Inbound connects only to addresses of its own pod, and this connection was for another.",
    "Look at the redirect rules and routes that brought the connection here.";
LOOP 3303 => "" 503, "The connection came back to the proxy that made it",
    "The proxy was asked to connect to itself.",
    "Look at the redirect rules: the proxy's own user must be exempt.";
DESTINATION_UNKNOWN 3304 => "" 503, "The connection's original destination is unknown",
    "The connection was not redirected to the proxy but dialled at its port, or the kernel does not tell the original destination.",
    "Dial the destination itself; the redirect rules bring the connection to the proxy.";
REDIRECT_NOT_WORKING 3305, "The redirect does not work",
    "At start the proxy dials an address that the redirect rules must bring back to it, and it did not come back. The proxy is not ready.",
    "Look at the log of the init step that programs the rules, and whether another tool replaced them.";

// M40: identity and authorization.
PLAINTEXT_REFUSED 4001 => "" 403, "Plaintext is refused here",
    "The port accepts mesh TLS only (strict), and the client came without.",
    "Bring the client into the mesh, or except the port with the annotation `gauze.dev/mtls: strict;PORT=permissive`.";
PEER_REFUSED 4002, "The peer showed no certificate of this mesh",
    "The TLS handshake failed: the client's certificate is missing, expired, from other roots, or has no identity of this mesh.",
    "The log names the reason and the peer's address. Look at the certificate of the peer with `gauze proxy config`.";
PEER_PROTOCOL_UNKNOWN 4003, "The peer speaks none of the mesh's protocols",
    "The client offered no ALPN that the proxy knows (`gauze/h2`, `gauze/http1`, `gauze/tcp`).",
    "Compare the versions of the two proxies.";
CERTIFICATE_EXPIRING 4004, "The proxy's certificate was not renewed in time",
    "The certificate is past the time at which it should have been renewed, and the authority did not issue a new one.",
    "Look at the proxy's log for M11 codes. When the certificate expires, all mesh connections of this pod end.";
STRICT_ENDPOINT_PLAIN 4005, "A plain endpoint of a strict workload is not used",
    "The workload accepts mesh TLS only, and this endpoint of it has no sidecar, so dialling it could only fail or leak.",
    "Restart the pod, so that it is injected, or take it out of the Service.";
DENIED 4006 => "UAEX" 403, "A policy denies this call",
    "An AuthorizationPolicy with `action: Deny` that selects the called pod matches the caller and what it asks for. Deny goes before Allow. An opaque connection is closed, since nothing can be answered there.",
    "The called pod's log and access log name the policy and its rule, and `gauze explain` shows why it matches.";
NOT_ALLOWED 4007 => "UAEX" 403, "No policy allows this call",
    "At least one AuthorizationPolicy with `action: Allow` selects the called pod, so only what one of them matches is let in, and none matches the caller and what it asks for. Bytes that are not HTTP match no rule with methods or paths, and a caller outside the mesh has no identity and no namespace.",
    "`gauze explain` shows for each policy which field missed. Add a rule for this caller, or correct the one that was meant to match it.";
POLICY_CLOSED 4008 => "UAEX" 403, "A policy that could not be read is closed",
    "An AuthorizationPolicy that selects the called pod cannot be read, so nobody knows whom it means: an Allow matches nobody until it is corrected, a Deny everybody.",
    "`gauze get` and the policy's status say which field is wrong. The called pod's log names the policy.";

// M50: routes, splits and policies.
PARENT_MISSING 5001, "The Service that the object is attached to does not exist",
    "`parentRefs`, `targetRefs` or `spec.service` names a Service that does not exist. The object has no effect there.",
    "Correct the name, or create the Service.";
PARENT_PORT_MISSING 5002, "The Service has no such port",
    "The port of the reference is none of the Service's ports (`port`, not `targetPort`).",
    "Correct the port of the reference.";
PARENT_KIND_UNSUPPORTED 5003, "The object is attached to something else than a Service",
    "A mesh attaches routes and policies to a Service. Other parents are for other controllers, or for none.",
    "Attach it to a Service of the core group.";
HEADLESS_PARENT 5004, "A headless Service cannot have routes or splits",
    "The Service has no ClusterIP: its clients dial pods, and a dialled pod is never replaced by another.",
    "Attach the object to a Service with a ClusterIP.";
SERVICE_TYPE_UNSUPPORTED 5005, "The Service is of a type that leads outside the mesh",
    "A Service of type ExternalName is only a name in DNS: it has no address and no endpoints in the cluster.",
    "Use a Service with a selector, or with EndpointSlices of its own.";
OVERRIDDEN 5006, "A route overrides the split",
    "The Service port has an HTTPRoute, GRPCRoute or TLSRoute, which decides alone. The TrafficSplit has no effect there.",
    "Move the weights into the route's `backendRefs`, or remove the route.";
CONFLICT 5007, "An older object of the same kind counts instead",
    "Two objects claim the same Service port (TLSRoutes: the same server name there) where only one can count: the oldest, then the first by name. Beside HTTPRoutes and GRPCRoutes no TLSRoute counts.",
    "Remove one of the two, or attach it elsewhere.";
PROTOCOL_CONFLICT 5008, "The port does not carry what the route matches",
    "The port is declared opaque or TLS (`appProtocol`, its name, or the list of opaque ports), so its requests cannot be seen; or, for a TLSRoute, it is declared to speak something else than TLS, so nobody looks for a server name.",
    "Declare the port as `http`, `kubernetes.io/h2c` or `grpc` (for a TLSRoute as `tls`, or not at all), or remove the route.";
BACKEND_MISSING 5101, "The backend does not exist",
    "The reference names a Service that does not exist. In a route its share of the requests is answered with 500; in a TrafficSplit it goes to the others.",
    "Correct the name and namespace, or create the Service.";
BACKEND_PORT_MISSING 5102, "The backend has no such port",
    "The Service has no such port (`port`, not `targetPort`), or the reference names none. In a route its share of the requests is answered with 500; in a TrafficSplit it goes to the others.",
    "Correct the port of the reference.";
BACKEND_KIND_UNSUPPORTED 5103, "The backend is of a kind that cannot be one",
    "Backends are Services of the core group. The share of this one is answered with 500.",
    "Refer to a Service.";
BACKEND_NOT_PERMITTED 5104, "The backend of a split is in another namespace",
    "A TrafficSplit divides among Services of its own namespace. This backend's share goes to the others.",
    "Use a Service of the split's own namespace, or an HTTPRoute, whose `backendRefs` may name a `namespace`.";
WEIGHTS_ALL_ZERO 5105, "All weights are 0",
    "No backend may receive anything. In a route every request is answered with 500; in a TrafficSplit requests go to the endpoints of the root itself.",
    "Give at least one backend a weight above 0.";
NO_ENDPOINTS 5106, "The backend has no ready endpoint",
    "The backend exists, and no pod of it is ready. In a route its share of the requests is answered with 503; in a TrafficSplit it goes to the others.",
    "Look at the backend's pods, or set its weight to 0 until they are ready.";
MATCH_GROUP_MISSING 5107, "The group of requests does not exist",
    "`spec.matches` of the TrafficSplit names an HTTPRouteGroup that its namespace does not have. No request belongs to it, so those that it means go to the root itself.",
    "Correct the name, or create the HTTPRouteGroup in the split's namespace.";
NO_BACKEND_NAMED 5108, "The rule names no backend",
    "A rule without `backendRefs` that does not redirect has nowhere to send its requests. They are answered with 500, as the Gateway API asks.",
    "Name a backend, or remove the rule: what no rule matches is answered with 404.";
UNSUPPORTED_FIELD 5201, "A field is not supported",
    "The field is part of the kind, and gauze does not implement it (yet). It has no effect; the rest of the rule has.",
    "Remove the field, or leave it for the day when it is supported.";
UNSUPPORTED_FILTER 5202, "A filter is not supported",
    "The filter is part of the kind, and gauze does not implement it (yet). Requests of this rule are answered with 500, as the Gateway API asks.",
    "Remove the filter, or split the rule.";
INCOMPATIBLE_FILTERS 5203, "Filters of one rule contradict each other",
    "The Gateway API permits each of these filters alone, not together or not twice.",
    "Split the rule, or remove one of the filters.";
INVALID_PATTERN 5204, "A regular expression cannot be used",
    "It does not compile, is larger than the limit, or uses look-around or back-references, which cost unbounded time.",
    "Correct the expression: the syntax is RE2's.";
MATCH_KIND_UNSUPPORTED 5205, "A split's match is of a kind that says nothing of requests",
    "`spec.matches` of a TrafficSplit names HTTPRouteGroups of `specs.smi-spec.io`. No request belongs to this one, so those that it means go to the root itself.",
    "Write `kind: HTTPRouteGroup` and the name of one, or use an HTTPRoute with these matches and weighted `backendRefs`.";
HEADER_CHANGED_TWICE 5206, "A filter changes one header twice",
    "The Gateway API permits one action for each header name of a filter. Of several in one list the first counts; what is removed is removed before something is set or added.",
    "Write one action for each header; several values go into one `value`, separated by commas.";
}
