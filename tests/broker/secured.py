"""A broker that asks who is there: TLS, every SASL mechanism, client certificates, and an authorizer that denies.

One listener for each thing that may be wrong with a server: `SASL` and `MTLS` are as they should be, the certificate
of `EXPIRED` has ended, that of `ELSEWHERE` names another host. `INTERNAL`, in plain text, is the broker's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.broker.kafka import KafkaBroker, free_ports
from tests.security.certificates import HERE_NAMES, Authority

LISTENERS = {"SASL": "SASL_SSL", "MTLS": "SSL", "EXPIRED": "SASL_SSL", "ELSEWHERE": "SASL_SSL"}
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
ADMIN = "root"
_MODULES = {
    "plain": "plain.PlainLoginModule",
    "scram-sha-256": "scram.ScramLoginModule",
    "scram-sha-512": "scram.ScramLoginModule",
    "oauthbearer": "oauthbearer.OAuthBearerLoginModule",
}


class SecuredBroker(KafkaBroker):
    """A `KafkaBroker` with users. `bootstrap` stays the broker's own listener; clients come by `at`."""

    def __init__(self, directory: Path, overrides: Mapping[str, str] | None = None) -> None:
        super().__init__(directory, overrides)
        self._ports = dict(zip(LISTENERS, free_ports(len(LISTENERS)), strict=True))
        self.authority = Authority(directory / "pki")
        self.passwords: dict[str, str] = {}

    @classmethod
    def with_users(cls, directory: Path, passwords: Mapping[str, str]) -> SecuredBroker:
        """Format and start one whose users, `ADMIN` among them, are these, by SCRAM and by PLAIN."""
        broker = cls(directory)
        broker.passwords = dict(passwords)
        try:
            broker._format()
            broker.launch()
        except BaseException:
            broker.kill()
            raise
        return broker

    def at(self, listener: str) -> str:
        """`127.0.0.1:<port>` of a listener."""
        return f"127.0.0.1:{self._ports[listener]}"

    def properties(self) -> dict[str, str]:
        """See `KafkaBroker`."""
        base = super().properties()
        places = {name: f"{name}://127.0.0.1:{port}" for name, port in self._ports.items()}
        own = f"INTERNAL://{self.bootstrap}"
        protocols = {**LISTENERS, "INTERNAL": "PLAINTEXT", "CONTROLLER": "PLAINTEXT"}
        secured = {
            "listeners": ",".join([own, base["listeners"].partition(",")[2], *places.values()]),
            "advertised.listeners": ",".join([own, *places.values()]),
            "listener.security.protocol.map": ",".join(f"{name}:{kind}" for name, kind in protocols.items()),
            "inter.broker.listener.name": "INTERNAL",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": f"User:ANONYMOUS;User:{ADMIN}",
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority.ca),
            "ssl.keystore.type": "PEM",
            "ssl.principal.mapping.rules": "RULE:^CN=([^,]+).*$/$1/",
            "sasl.enabled.mechanisms": ",".join(MECHANISMS),
            "listener.name.mtls.ssl.client.auth": "required",
            # A client that may not come in is told at once, not after a second.
            "connection.failed.authentication.delay.ms": "20",
        }
        servers = {
            "sasl": self.authority.leaf("broker", names=HERE_NAMES),
            "mtls": self.authority.leaf("broker-mtls", names=HERE_NAMES),
            "expired": self.authority.leaf("broker", names=HERE_NAMES, expired=True),
            "elsewhere": self.authority.leaf("elsewhere", names=("broker.elsewhere.test",)),
        }
        for name, leaf in servers.items():
            secured[f"listener.name.{name}.ssl.keystore.location"] = str(leaf.both)
        users = " ".join(f'user_{name}="{password}"' for name, password in self.passwords.items())
        for listener in ("sasl", "expired", "elsewhere"):
            for mechanism, module in _MODULES.items():
                options = {"plain": f" {users}", "oauthbearer": ' unsecuredLoginStringClaim_sub="broker"'}
                secured[f"listener.name.{listener}.{mechanism}.sasl.jaas.config"] = (
                    f"org.apache.kafka.common.security.{module} required{options.get(mechanism, '')};"
                )
        return {**base, **secured, **self._overrides}

    def format_arguments(self) -> list[str]:
        """See `KafkaBroker`: the users, who must be there before the first of them can come in."""
        return [
            word
            for name, password in self.passwords.items()
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for word in ("--add-scram", f"{mechanism}=[name={name},password={password}]")
        ]

    def client(self, user: str, mechanism: str = "SCRAM-SHA-512", listener: str = "SASL") -> dict[str, str]:
        """librdkafka properties of a user, with the right password and the right authority."""
        return {
            "bootstrap.servers": self.at(listener),
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": mechanism,
            "sasl.username": user,
            "sasl.password": self.passwords[user],
            "ssl.ca.location": str(self.authority.ca),
        }

    def mutual(self, name: str, *, expired: bool = False, password: str | None = None) -> dict[str, str]:
        """The same for somebody who shows a certificate."""
        leaf = self.authority.leaf(name, expired=expired, password=password)
        made = {
            "bootstrap.servers": self.at("MTLS"),
            "security.protocol": "SSL",
            "ssl.ca.location": str(self.authority.ca),
            "ssl.certificate.location": str(leaf.certificate),
            "ssl.key.location": str(leaf.key),
        }
        return {**made, "ssl.key.password": password} if password else made
