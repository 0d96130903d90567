"""What `enclavescale verify` does for each kind of evidence: verify it, judge it by the policy, make the verdict."""
