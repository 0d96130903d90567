"""The side that proves: quote providers, the session whose key they vouch for, a simulated TEE for demo and tests."""
