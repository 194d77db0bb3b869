//! What can be proven without a cluster: certificates, manifests, refusals' classes.
