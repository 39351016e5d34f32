"""Opens a tokfence vault without any code of the project, from the layout in `vault/src/format.rs` alone.

usage: read_vault.py VAULT ANSWER.json

ANSWER.json holds the secrets to open VAULT with (`passphrase`, `recovery_code`, `keyring_secret`) and the entries it
must contain. Every secret given must open its slot and lead to the same entries; otherwise the exit status is not 0.
"""

import hashlib, hmac, json, struct, sys
from argon2.low_level import Type, hash_secret_raw
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt as decrypt

BASE32 = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
TEXTS = {1: "provider", 3: "label", 4: "secret", 5: "allowed_origin", 6: "auth_style"}
TIMES = {7: "created_at_us", 8: "rotated_at_us", 9: "not_after_us"}


def hkdf(secret, salt, info):
    extracted = hmac.digest(salt, secret, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def recovery_bytes(text):
    bits = 0
    for symbol in text.replace("-", "")[:32]:
        bits = bits << 5 | BASE32.index(symbol)
    return bits.to_bytes(20, "big")


def read(file, answer):
    assert file[:10] == b"TOKVAULT\x00\x01", "magic and version"
    header_len, vault_id, _generation, aead, count = struct.unpack(">H16sQBB", file[10:38])
    header, at, data_keys = file[:header_len], 38, {}
    assert aead == 1 and 1 <= count <= 8, "cipher and number of slots"
    for _ in range(count):
        kind, length = struct.unpack(">BH", file[at : at + 3])
        body, at = file[at + 3 : at + 3 + length], at + 3 + length
        kdf_fields = body[:10] if kind == 1 else b""
        salt, nonce, wrapped = struct.unpack("16s24s48s", body[-88:])
        if kind == 1 and "passphrase" in answer:
            kdf, m_kib, t, p = struct.unpack(">BIIB", kdf_fields)
            assert kdf == 1 and len(body) == 98, "key derivation"
            key = hash_secret_raw(answer["passphrase"].encode(), salt, t, m_kib, p, 32, Type.ID)
        elif kind == 2 and "keyring_secret" in answer:
            key = hkdf(bytes.fromhex(answer["keyring_secret"]), salt, b"tokfence/v1/slot/keyring")
        elif kind == 4 and "recovery_code" in answer:
            key = hkdf(recovery_bytes(answer["recovery_code"]), salt, b"tokfence/v1/slot/recovery")
        else:
            continue
        data_keys[kind] = decrypt(wrapped, file[:10] + vault_id + bytes([kind]) + kdf_fields + salt, nonce, key)
    assert data_keys and len(set(data_keys.values())) == 1, "all slots hold one data key"
    data_key = next(iter(data_keys.values()))
    assert at + 32 == header_len, "the commitment ends the header"
    assert hkdf(data_key, vault_id, b"tokfence/v1/commit") == file[at:header_len], "commitment"
    nonce, payload = file[header_len : header_len + 24], file[header_len + 24 :]
    plaintext = decrypt(payload, header, nonce, hkdf(data_key, vault_id, b"tokfence/v1/payload"))
    return sorted(data_keys), list(entries(plaintext))


def entries(plaintext):
    content_len, count = struct.unpack(">IH", plaintext[:6])
    assert len(plaintext) % 4096 == 0 and not any(plaintext[4 + content_len :]), "padding"
    at = 6
    for _ in range(count):
        (length,) = struct.unpack(">H", plaintext[at : at + 2])
        end, at, entry = at + 2 + length, at + 2, {"not_after_us": None}
        while at < end:
            tag, size = struct.unpack(">BH", plaintext[at : at + 3])
            value, at = plaintext[at + 3 : at + 3 + size], at + 3 + size
            if tag in TEXTS:
                entry[TEXTS[tag]] = value.decode()
            elif tag in TIMES:
                entry[TIMES[tag]] = int.from_bytes(value, "big", signed=True)
            else:
                assert tag == 2, "field"
                entry["kind"] = {b"\1": "inference", b"\2": "admin", b"\3": "canary"}[value]
        yield entry
    assert at == 4 + content_len, "the entries fill the content"


if __name__ == "__main__":
    vault, answer = open(sys.argv[1], "rb").read(), json.load(open(sys.argv[2], encoding="utf-8"))
    slots, found = read(vault, answer)
    if found != answer["entries"]:
        sys.exit(f"{sys.argv[1]}: found {found}, expected {answer['entries']}")
    secrets = {"passphrase", "keyring_secret", "recovery_code"} & answer.keys()
    if len(slots) != len(secrets):
        sys.exit(f"{sys.argv[1]}: opened slots {slots} with {sorted(secrets)}")
    print(f"{sys.argv[1]}: slots {slots}, {len(found)} entries, as expected")
