"""Cases are searched and sorted; the filters by value are tested in test_cases.py."""

from starlette.testclient import TestClient


def test_cases_are_searched_and_sorted(client: TestClient) -> None:
    first = client.get("/api/cases").json()["cases"][0]
    for text in (first["case_id"][:9], first["prompt"].upper()):
        found = client.get("/api/cases", params={"text": text}).json()["cases"]
        assert first["case_id"] in {c["case_id"] for c in found}
        assert all(text.lower() in c["prompt"].lower() or c["case_id"].startswith(text) for c in found)
    assert client.get("/api/cases", params={"text": "100%_"}).json()["paging"]["total"] == 0
    for sort in ("capability", "prompt", "track"):
        keys = [c[sort] or "\uffff" for c in client.get("/api/cases", params={"sort": sort}).json()["cases"]]
        assert keys == sorted(keys) and len(set(keys)) > 1
    oldest = [c["round"] for c in client.get("/api/cases", params={"sort": "oldest round"}).json()["cases"]]
    assert oldest == sorted(oldest)
