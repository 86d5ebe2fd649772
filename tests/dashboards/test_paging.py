"""Pages of long lists."""

from dashboards.paging import Paging


def test_pages_cover_the_list_and_links_keep_the_filters() -> None:
    paging = Paging("/cases", {"track": "rl", "status": "", "text": "a&b=c"}, total=21, page=2, size=10)
    assert paging.pages == 3 and paging.filtered
    assert paging.link(3) == "/cases?track=rl&text=a%26b%3Dc&page=3"
    assert paging.query == "track=rl&text=a%26b%3Dc&page=2"
    nothing = Paging("/cases", {"track": ""}, total=0, page=1, size=10)
    assert nothing.pages == 0 and not nothing.filtered
