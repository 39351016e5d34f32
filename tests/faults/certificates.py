"""Certificates that must not be trusted, made with openssl."""

import subprocess

from process import Failure


class Authority:
    """One that the gateway is told to trust, and what it or nobody signed."""

    def __init__(self, folder):
        self._folder = folder
        folder.mkdir()
        folder.chmod(0o755)
        self.file = folder / "authority.pem"
        self._key = folder / "authority.key"
        self._openssl("req", "-x509", *self._new_key(self._key), "-out", self.file, "-days", "30", "-subj", "/CN=tests")
        self.file.chmod(0o644)

    def self_signed(self):
        key, certificate = self._files("selfsigned")
        name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        self._openssl("req", "-x509", *self._new_key(key), "-out", certificate, "-days", "30", *name)
        return certificate, key

    def expired(self):
        return self._signed("expired", "localhost", ["faketime", "2020-01-01"])

    def of_another_name(self):
        return self._signed("wrongname", "elsewhere.example", [])

    def _signed(self, name, host, before):
        key, certificate = self._files(name)
        request = self._folder / f"{name}.csr"
        extensions = self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName=DNS:{host}\n")
        self._openssl("req", *self._new_key(key), "-out", request, "-subj", f"/CN={host}")
        signing = ["-in", request, "-CA", self.file, "-CAkey", self._key, "-CAcreateserial", "-extfile", extensions]
        self._openssl("x509", "-req", *signing, "-days", "1", "-out", certificate, before=before)
        return certificate, key

    def _files(self, name):
        return self._folder / f"{name}.key", self._folder / f"{name}.pem"

    @staticmethod
    def _new_key(file):
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", file]

    @staticmethod
    def _openssl(*arguments, before=()):
        done = subprocess.run([*before, "openssl", *arguments], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failure(f"openssl {arguments[0]}: {done.stderr}")
