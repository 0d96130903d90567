"""A real Schema Registry for the tests: `RegistryServer` starts Apicurio's, whose Confluent-compatible API we use."""
