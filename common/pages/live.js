// Keeps the parts of an open page new. The server says "news"; the page is fetched again, and parts that differ are put in.
"use strict";
(() => {
  const note = document.getElementById("live-note");
  const say = (text) => { if (note && note.textContent !== text) note.textContent = text; };

  for (const chosen of document.querySelectorAll("input[data-into]")) {
    chosen.addEventListener("change", async () => {
      if (chosen.files[0]) document.getElementById(chosen.dataset.into).value = await chosen.files[0].text();
    });
  }

  let busy = false;
  let again = false;

  function putIn(fresh) {
    for (const part of document.querySelectorAll("[data-live]")) {
      const now = fresh.getElementById(part.id);
      const inUse = part.contains(document.activeElement) || part.querySelector("details[open]");
      if (now && !inUse && now.innerHTML !== part.innerHTML) part.replaceChildren(...now.childNodes);
    }
  }

  async function refresh() {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const answer = await fetch(location.href, { headers: { "x-live": "1" }, cache: "no-store" });
      if (answer.ok) putIn(new DOMParser().parseFromString(await answer.text(), "text/html"));
    } catch { /* the stream notices that the server is gone */ } finally {
      busy = false;
      if (again) { again = false; refresh(); }
    }
  }

  const source = new EventSource(document.body.dataset.events);
  source.addEventListener("open", () => say("This page keeps itself up to date."));
  source.addEventListener("news", refresh);
  source.addEventListener("ended", () => { source.close(); say("This page has ended. Ask for a new link."); });
  source.addEventListener("error", () => say("This page is not up to date: nothing answers at present."));
})();
