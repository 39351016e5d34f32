import threading

from caller import Load
from process import Failure, expect

TITLE = "eight processes edit while requests run"
EDITORS = 8
PROVIDERS = ["anthropic", "google", "mistral", "openrouter", "deepseek", "xai", "together", "fireworks"]


def run(world):
    edits = world.pick(6, 500)
    house = world.house()
    house.start()
    generation = vault_generation(house)
    failures, vault_edits = [], [0] * EDITORS
    with Load(house, callers=2, pause=0.005) as load:
        editors = [
            threading.Thread(target=edit, args=(house, number, edits, failures, vault_edits)) for number in range(EDITORS)
        ]
        for editor in editors:
            editor.start()
        for editor in editors:
            editor.join()
    expect(not failures, f"{len(failures)} edits failed: {failures[:3]}")
    expect(set(load.codes()) == {"200"} and not load.broken, f"{load.codes()} {load.broken[:3]}")
    agents = {agent["name"] for agent in house.json("agent", "list")["agents"]}
    budgets = {budget["name"]: budget for budget in house.json("budget", "status")["budgets"]}
    for number in range(EDITORS):
        for count in range(edits):
            if count % 3 == 0:
                expect(f"e{number}-{count}" in agents, f"agent e{number}-{count} is lost")
        last = max(count for count in range(edits) if count % 3 == 1)
        found = budgets[f"agent:editor{number}/daily"]["limit"]["usd"]
        expect(float(found) == last + 1, f"the last budget of editor {number} is lost: {found}")
    grown = vault_generation(house) - generation
    expect(grown == sum(vault_edits), f"the vault's generation grew by {grown} in {sum(vault_edits)} edits")
    house.audit(load.answers)
    expect("database is locked" not in house.log_text(), "`database is locked` surfaced")
    house.stop()
    world.rounds = EDITORS * edits
    return world.rounds, f"{len(load.answers)} requests meanwhile, none failed; {sum(vault_edits)} of them of the vault"


def edit(house, number, edits, failures, vault_edits):
    try:
        house.run("agent", "mint", f"editor{number}")
        for count in range(edits):
            kind = count % 3
            if kind == 0:
                house.run("agent", "mint", f"e{number}-{count}")
            elif kind == 1:
                house.run("budget", "set", f"agent:editor{number}", str(count + 1), "daily")
            else:
                key = f"key-{number}-{count}-0123456789"
                house.run("vault", "add", PROVIDERS[number], "-", stdin=key, unlocks=True)
                vault_edits[number] += 1
    except Failure as failure:
        failures.append(str(failure))


def vault_generation(house):
    """Out of the file's head, as it is documented: magic 8, version 2, header length 2, vault id 16, generation 8."""
    return int.from_bytes(house.vault.read_bytes()[28:36], "big")
