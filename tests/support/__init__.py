"""Stand-ins that tests share: small models, an OpenML on loopback, made-up stores."""
