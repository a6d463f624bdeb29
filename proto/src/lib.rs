//! The gRPC contract: generated messages, clients and servers. No logic.

/// Version 1 of the contract.
pub mod v1 {
    #![allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::panic)]
    tonic::include_proto!("everwhen.v1");

    /// The compiled descriptors, for server reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/everwhen.v1.bin"));
}
