#!/bin/sh
# What an operator does once, with the commands of docs/tutorial.md: signer's key, topics, a policy that enrols the
# simulated hosts, its signature, its publication. Everything made is kept in the working directory, the volume `setup`.
# Run again it keeps the key and the fleet, and signs and publishes the policy anew, so that it does not end.
set -eu
umask 077

if [ ! -s passphrase ]; then
    python -c 'import secrets; print(secrets.token_urlsafe(24))' > passphrase
fi
if [ ! -s signer.hex ]; then
    rm -f signer.pem
    enclavescale policy keygen signer.pem --passphrase-file passphrase --json > signer.json
    python -c 'import json; print(json.load(open("signer.json"))["signer_public_key"])' > signer.hex
fi
signer=$(cat signer.hex)

enclavescale topics create --partitions 2 --replication 1
enclavescale schemas register --registry "$SCHEMA_REGISTRY"

if [ ! -s fleet.toml ]; then
    enclavescale policy init fleet.toml --from-demo tee --hosts 8
fi
# Cluster and volume live and die apart: the counter goes on from whichever has the higher one.
if [ -s policy.avro ]; then
    enclavescale policy sign fleet.toml --key signer.pem --passphrase-file passphrase --previous policy.avro -o policy.avro
else
    enclavescale policy sign fleet.toml --key signer.pem --passphrase-file passphrase --first -o policy.avro
fi
enclavescale policy apply policy.avro --policy-signer "$signer"
