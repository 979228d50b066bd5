// What makes the console quicker to use; everything works without it.
"use strict";

// Search as you type: the same page, of which only the results are put in place.
for (const form of document.querySelectorAll("form[data-live]")) {
  let timer = 0, asking = null;
  const look = async () => {
    asking?.abort();
    asking = new AbortController();
    const said = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
    const where = form.action.split("?")[0] + (said.size ? "?" + said : "");
    try {
      const answer = await fetch(where, { signal: asking.signal, redirect: "error" });
      if (!answer.ok) throw new Error(answer.statusText);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const id = form.dataset.live;
      const found = document.importNode(page.getElementById(id), true);
      document.getElementById(id).replaceWith(found);
      const told = document.getElementById("found");
      if (told) told.textContent = found.dataset.found || "";
      history.replaceState(null, "", where);
    } catch (error) {
      if (error.name !== "AbortError") form.submit();
    }
  };
  form.addEventListener("input", (event) => {
    clearTimeout(timer);
    timer = setTimeout(look, event.target.type === "search" ? 220 : 0);
  });
  form.addEventListener("submit", (event) => { event.preventDefault(); clearTimeout(timer); look(); });
}

// Ask before what cannot be undone.
document.addEventListener("submit", (event) => {
  const question = event.target.dataset.ask;
  if (question && !confirm(question)) event.preventDefault();
});

document.addEventListener("change", (event) => {
  const name = event.target.dataset.all;
  if (name) for (const box of document.getElementsByName(name)) box.checked = event.target.checked;
});

// Work that goes on is looked at until it is over.
const work = document.querySelector("[data-again]");
if (work) {
  const again = async () => {
    try {
      const answer = await fetch(location.href, { redirect: "error" });
      if (!answer.ok) throw new Error(answer.statusText);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const now = page.getElementById("work");
      document.getElementById("work").replaceChildren(...document.importNode(now, true).childNodes);
      if (now.hasAttribute("data-again")) setTimeout(again, 1000);
    } catch { setTimeout(again, 5000); }
  };
  setTimeout(again, 1000);
}

for (const opener of document.querySelectorAll("[data-sheet]")) {
  opener.hidden = false;
  opener.addEventListener("click", () => document.getElementById(opener.dataset.sheet).showModal());
}

// j k x r / ? for whoever reads many in a row.
const list = document.querySelector("[data-keys]");
const cases = list ? [...list.children] : [];
let at = -1;
const go = (to) => {
  if (!cases.length) return;
  cases[at]?.classList.remove("here");
  at = Math.max(0, Math.min(cases.length - 1, to));
  cases[at].classList.add("here");
  cases[at].focus({ preventScroll: true });
  cases[at].scrollIntoView({ block: "nearest" });
};
// Where somebody was is found again on the page that comes after a mark.
const PLACE = "place:" + location.pathname;
document.addEventListener("submit", (event) => {
  if (at >= 0 && event.target.method === "post") sessionStorage.setItem(PLACE, String(at));
});
const back = list ? sessionStorage.getItem(PLACE) : null;
sessionStorage.removeItem(PLACE);
const keys = {
  j: () => go(at + 1),
  k: () => go(at - 1),
  o: () => cases[at]?.querySelector("a")?.click(),
  x: () => { const box = cases[at]?.querySelector("[name=ids]"); if (box) box.checked = !box.checked; },
  r: () => cases[at]?.querySelector("[data-mark]")?.click(),
  "/": () => document.querySelector("[data-search]")?.focus(),
  "?": () => document.getElementById("keys")?.showModal(),
};
if (back !== null) go(Number(back));
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (event.target.closest?.("input, select, textarea, dialog[open]")) return;
  const act = keys[event.key];
  if (!act || (event.key !== "/" && !list && event.key !== "?")) return;
  event.preventDefault();
  act();
});

// What is written is seen at once on the student's page beside it.
for (const button of document.querySelectorAll("[data-preview]")) {
  let timer = 0;
  button.form.elements.text.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => button.form.requestSubmit(button), 350);
  });
}

// Who is on now: what the service sends is put in place, and whoever is at a button there stays at it.
const live = document.querySelector("[data-stream]");
if (live && window.EventSource) {
  const pulse = document.getElementById("pulse"), pause = document.getElementById("pause"), go_on = pause.dataset.paused, stop = pause.textContent;
  let source = null, held = null, paused = false;
  const say = (state) => { if (pulse.dataset.state !== state) { pulse.dataset.state = state; pulse.textContent = live.dataset[state]; } };
  const show = (html) => {
    const at_id = live.contains(document.activeElement) ? document.activeElement.id : "";
    const page = new DOMParser().parseFromString(html, "text/html");
    live.replaceChildren(...document.importNode(page.body, true).childNodes);
    if (at_id) document.getElementById(at_id)?.focus({ preventScroll: true });
  };
  source = new EventSource(live.dataset.stream);
  source.addEventListener("list", (event) => {
    held = JSON.parse(event.data).html;
    if (!paused) show(held);
  });
  source.onopen = () => say(paused ? "off" : "on");
  source.onerror = () => say("lost");
  pulse.hidden = pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? go_on : stop;
    say(paused ? "off" : "on");
    if (!paused && held) show(held);
  });
  addEventListener("pagehide", () => source.close());
}

// What the rule of a form does, said while somebody types.
for (const form of document.querySelectorAll("form[data-say]")) {
  let timer = 0;
  const say = async () => {
    try {
      const body = new URLSearchParams(new FormData(form));
      const answer = await fetch(form.getAttribute("action") + "/say", { method: "POST", body, redirect: "error" });
      if (!answer.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      document.getElementById(form.dataset.say).replaceChildren(...document.importNode(page.getElementById(form.dataset.say), true).childNodes);
    } catch { /* the page says it when it is saved */ }
  };
  form.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(say, 400); });
}
