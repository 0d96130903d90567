"""Who may do what on the cluster: roles, their rights on topics and groups, and how much they may take."""
