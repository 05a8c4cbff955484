"use strict";
(() => {
  const page = JSON.parse(document.getElementById("data").textContent);
  const panel = document.getElementById("panel");
  const search = document.getElementById("search");
  const hits = document.getElementById("hits");
  const state = { tab: 0, view: new Map(), found: [], at: -1 };

  // --- small helpers: everything from the model goes through textContent ---------------------------

  const make = (tag, text, cls) => {
    const e = document.createElement(tag);
    if (text !== undefined) e.textContent = text;
    if (cls) e.className = cls;
    return e;
  };
  const add = (parent, ...children) => {
    parent.append(...children.filter(Boolean));
    return parent;
  };
  const list = (items) => add(make("ul"), ...items.map((i) => add(make("li"), i instanceof Node ? i : make("code", i))));
  const pairs = (rows) =>
    add(make("table"), ...rows.map(([k, v]) => add(make("tr"), make("td", k), v instanceof Node ? add(make("td"), v) : make("td", v))));
  const heading = (text) => make("h3", text);
  const section = () => document.querySelector(`section[data-tab="${state.tab}"]`);
  const drawing = () => section().querySelector("svg.drawing");
  const boxes = () => page.tabs[state.tab].views?.[state.view.get(state.tab)]?.boxes ?? {};

  // --- tabs and views ---------------------------------------------------------------------------------

  function showTab(i) {
    state.tab = i;
    document.querySelectorAll("section.tab").forEach((s) => (s.hidden = Number(s.dataset.tab) !== i));
    document.querySelectorAll("nav button").forEach((b) => b.setAttribute("aria-selected", String(Number(b.dataset.tab) === i)));
    const tab = page.tabs[i];
    if (tab.kind === "graph" && !state.view.has(i)) showView(tab.views.length ? 0 : "text");
    overview();
    find();
    history.replaceState(null, "", "#" + encodeURIComponent(tab.name));
  }

  function showView(view) {
    const tab = page.tabs[state.tab];
    const stage = section().querySelector(".stage");
    state.view.set(state.tab, view);
    section().querySelectorAll("[data-view]").forEach((b) => b.classList.toggle("on", b.dataset.view === String(view)));
    stage.replaceChildren();
    if (view === "text") {
      stage.append(make("pre", tab.text));
      return;
    }
    stage.append(document.getElementById(tab.views[view].id).content.cloneNode(true));
    movable(drawing());
    find();
  }

  // --- pan and zoom -----------------------------------------------------------------------------------

  function movable(svg) {
    const whole = svg.viewBox.baseVal;
    const full = { x: whole.x, y: whole.y, width: whole.width, height: whole.height };
    const set = (x, y, width, height) => svg.setAttribute("viewBox", `${x} ${y} ${width} ${height}`);
    svg.fit = () => {
      // Text stays readable: a large drawing opens at its first box rather than whole.
      const { clientWidth: w, clientHeight: h } = svg;
      const whole = Math.min(w / full.width, h / full.height, 1);
      const scale = Math.max(whole, Math.min(0.62, Math.max(w / full.width, 0.38)));
      const width = w / scale, height = h / scale;
      const first = svg.querySelector(".box")?.getBBox();
      const middle = full.x + full.width / 2;
      const centre = width >= full.width || !first ? middle : first.x + first.width / 2;
      set(centre - width / 2, height > full.height ? full.y - (height - full.height) / 2 : full.y, width, height);
    };
    svg.zoom = (factor, px, py) => {
      const v = svg.viewBox.baseVal;
      const cx = px ?? v.x + v.width / 2, cy = py ?? v.y + v.height / 2;
      const width = Math.min(Math.max(v.width / factor, 60), full.width * 6 + 4000);
      const f = v.width / width;
      set(cx - (cx - v.x) / f, cy - (cy - v.y) / f, width, v.height / f);
    };
    svg.centre = (x, y) => {
      const v = svg.viewBox.baseVal;
      set(x - v.width / 2, y - v.height / 2, v.width, v.height);
    };
    const place = (e) => new DOMPoint(e.clientX, e.clientY).matrixTransform(svg.getScreenCTM().inverse());
    svg.addEventListener("wheel", (e) => {
      e.preventDefault();
      if (e.shiftKey || Math.abs(e.deltaX) > Math.abs(e.deltaY)) {
        const v = svg.viewBox.baseVal, k = v.width / svg.clientWidth;
        return set(v.x + (e.deltaX || e.deltaY) * k, v.y, v.width, v.height);
      }
      const p = place(e);
      svg.zoom(Math.exp(-e.deltaY * 0.0016), p.x, p.y);
    }, { passive: false });
    const held = new Map();
    let moved = 0;
    svg.addEventListener("pointerdown", (e) => { held.set(e.pointerId, e); moved = 0; });
    svg.addEventListener("pointermove", (e) => {
      const before = held.get(e.pointerId);
      if (!before) return;
      const v = svg.viewBox.baseVal, k = Math.max(v.width / svg.clientWidth, v.height / svg.clientHeight);
      const others = [...held.values()].filter((o) => o.pointerId !== e.pointerId);
      if (others.length) {
        const o = others[0];
        const gap = (p) => Math.hypot(p.clientX - o.clientX, p.clientY - o.clientY) || 1;
        const p = place(e);
        svg.zoom(gap(e) / gap(before), p.x, p.y);
      } else {
        set(v.x - (e.clientX - before.clientX) * k, v.y - (e.clientY - before.clientY) * k, v.width, v.height);
      }
      moved += Math.abs(e.clientX - before.clientX) + Math.abs(e.clientY - before.clientY);
      if (moved > 4) { svg.classList.add("moving"); svg.setPointerCapture(e.pointerId); }
      held.set(e.pointerId, e);
    });
    const release = (e) => { held.delete(e.pointerId); svg.classList.remove("moving"); };
    svg.addEventListener("pointerup", release);
    svg.addEventListener("pointercancel", release);
    svg.addEventListener("click", (e) => {
      if (moved > 4) return;
      const box = e.target.closest(".box");
      box ? choose(box.dataset.key) : overview();
    });
    svg.fit();
  }

  // --- the side panel ---------------------------------------------------------------------------------

  function clearMarks() {
    section().querySelectorAll(".chosen,.near").forEach((e) => e.classList.remove("chosen", "near"));
    drawing()?.classList.remove("focused");
  }

  function overview() {
    clearMarks();
    const tab = page.tabs[state.tab];
    panel.replaceChildren(make("h2", tab.name), tab.explanation ? make("p", tab.explanation, "soft") : "");
    if (tab.kind !== "graph") {
      add(panel, make("p", tab.kind === "kernels" ? "Choose a launch to see its buffers and its loops." : "Choose a rectangle to see which buffer it is.", "soft"));
      return;
    }
    const note = tab.views[state.view.get(state.tab)]?.note;
    if (note) add(panel, make("p", note, "soft"));
    add(panel, pairs(tab.summary));
    if (tab.parameters.length) add(panel, heading("Variables"), pairs(tab.parameters.map(([n, t, k]) => [n, `${t} ${k}`])));
  }

  const link = (key, text) => {
    const a = make("a", text ?? boxes()[key]?.title ?? key);
    a.tabIndex = 0;
    a.addEventListener("click", () => choose(key, true));
    a.addEventListener("keydown", (e) => e.key === "Enter" && choose(key, true));
    return a;
  };

  function operand(o) {
    if (!o.box) return add(make("span"), make("code", o.text), make("span", " " + o.from, "soft"));
    const key = o.box in boxes() ? o.box : null;
    return key ? add(make("span"), make("code", o.text), " from ", link(key)) : make("code", o.text);
  }

  function choose(key, travel) {
    const facts = boxes()[key];
    if (!facts) return;
    clearMarks();
    const svg = drawing();
    const box = svg.querySelector(`[data-key="${CSS.escape(key)}"]`);
    box.classList.add("chosen");
    svg.classList.add("focused");
    const read = [];
    svg.querySelectorAll(".edge").forEach((e) => {
      if (e.dataset.from === key || e.dataset.to === key) e.classList.add("near");
      if (e.dataset.from === key) read.push(e.dataset.to);
    });
    if (travel) {
      const b = box.getBBox();
      svg.centre(b.x + b.width / 2, b.y + b.height / 2);
    }
    describe(key, facts, read);
  }

  function describe(key, facts, read) {
    panel.replaceChildren(make("h2", facts.title));
    add(panel, add(make("p"), make("span", facts.role, `chip ${facts.role}`), make("span", " " + facts.kind, "soft")));
    if (facts.source) add(panel, heading("Source"), make("p", facts.source), facts.file ? make("p", facts.file, "soft") : "");
    const kin = Object.entries(boxes()).filter(([k, f]) => k !== key && facts.name && f.name === facts.name && f.role !== facts.role);
    if (kin.length) {
      add(panel, heading(facts.role === "backward" ? "Derivative of" : "Other parts of the same source"));
      add(panel, list(kin.slice(0, 40).map(([k, f]) => add(make("span"), make("span", f.role + " ", "soft"), link(k)))));
    }
    if (facts.type) add(panel, heading("Type"), make("code", facts.type));
    if (facts.results?.length) add(panel, heading("Results"), list(facts.results));
    if (facts.operands?.length) add(panel, heading("Reads"), list(facts.operands.map(operand)));
    if (facts.variables?.length) add(panel, heading("Reads variables"), list(facts.variables));
    if (read.length) add(panel, heading("Read by"), list([...new Set(read)].slice(0, 60).map((k) => link(k))));
    const attributes = Object.entries(facts.attributes ?? {});
    if (attributes.length) add(panel, heading("Attributes"), pairs(attributes));
    if (facts.updates?.length) add(panel, heading("Becomes"), list(facts.updates));
    if (facts.checks?.length) add(panel, heading("Stops the step if true"), list(facts.checks));
    if (facts.nodes?.length) {
      add(panel, heading(`${facts.nodes.length + (facts.unlisted ?? 0)} nodes`));
      add(panel, pairs(facts.nodes.map((n) => [n.op, n.result])));
      if (facts.unlisted) add(panel, make("p", `and ${facts.unlisted} more`, "soft"));
    }
  }

  function chooseRow(row) {
    clearMarks();
    row.classList.add("chosen");
    const tab = page.tabs[state.tab];
    const r = tab.rows[Number(row.dataset.row)];
    panel.replaceChildren(make("h2", r.cells[1]));
    add(panel, add(make("p"), make("span", r.role, `chip ${r.role}`)));
    if (r.message) add(panel, make("p", r.message));
    if (r.source) add(panel, heading("Source"), make("p", r.source));
    add(panel, heading("Buffers"), pairs(r.buffers.map((b) => [b.access, [b.name, b.type, b.space].filter(Boolean).join("  ")])));
    if (r.kernel) add(panel, heading(r.kernel), make("pre", tab.texts[r.kernel] ?? ""));
  }

  function chooseBar(bar) {
    clearMarks();
    bar.classList.add("chosen");
    const tab = page.tabs[state.tab];
    const facts = tab.bars[bar.dataset.key];
    panel.replaceChildren(make("h2", facts.name), pairs(Object.entries(facts).slice(1)));
    const span = /items (\d+) to (\d+)/.exec(facts.live);
    if (!span) return;
    const [first, last] = [Number(span[1]), Number(span[2])];
    add(panel, heading("Written by"), make("p", `${first}  ${tab.items[first]}`));
    add(panel, heading("Needed until"), make("p", `${last}  ${tab.items[last]}`));
  }

  // --- search -----------------------------------------------------------------------------------------

  function find() {
    const text = search.value.trim().toLowerCase();
    const root = section();
    root.classList.toggle("searching", Boolean(text));
    root.querySelectorAll(".hit,.missed").forEach((e) => e.classList.remove("hit", "missed"));
    hits.textContent = "";
    state.found = [];
    state.at = -1;
    if (!text) return;
    const tab = page.tabs[state.tab];
    const holds = (x) => JSON.stringify(x).toLowerCase().includes(text);
    if (tab.kind === "graph") {
      const facts = boxes();
      root.querySelectorAll(".box").forEach((b) => {
        const { operands, ...own } = facts[b.dataset.key] ?? {};
        const variables = (operands ?? []).filter((o) => !o.box);
        if (holds(own) || holds(variables) || b.textContent.toLowerCase().includes(text)) {
          b.classList.add("hit");
          state.found.push(b.dataset.key);
        }
      });
    } else if (tab.kind === "kernels") {
      root.querySelectorAll("tbody tr").forEach((r) => {
        const hit = holds(tab.rows[Number(r.dataset.row)]);
        r.classList.toggle("missed", !hit);
        if (hit) state.found.push(r);
      });
    } else {
      root.querySelectorAll(".bar[data-key]").forEach((b) => {
        if (!holds(tab.bars[b.dataset.key])) return;
        b.classList.add("hit");
        state.found.push(b);
      });
    }
    hits.textContent = state.found.length === 1 ? "1 found" : `${state.found.length} found`;
  }

  function next(step) {
    if (!state.found.length) return;
    state.at = (state.at + step + state.found.length) % state.found.length;
    hits.textContent = `${state.at + 1} of ${state.found.length}`;
    const found = state.found[state.at];
    if (typeof found === "string") return choose(found, true);
    found.dataset.row === undefined ? chooseBar(found) : chooseRow(found);
    found.scrollIntoView({ block: "nearest" });
  }

  // --- events -----------------------------------------------------------------------------------------

  document.querySelector("nav").addEventListener("click", (e) => e.target.dataset.tab && showTab(Number(e.target.dataset.tab)));
  document.querySelector("main").addEventListener("click", (e) => {
    const t = e.target.closest("[data-view],[data-zoom],tr[data-row],.bar[data-key]");
    if (!t) return;
    if (t.dataset.view !== undefined) { showView(t.dataset.view === "text" ? "text" : Number(t.dataset.view)); overview(); }
    else if (t.dataset.zoom === "fit") drawing()?.fit();
    else if (t.dataset.zoom) drawing()?.zoom(t.dataset.zoom === "in" ? 1.3 : 1 / 1.3);
    else if (t.dataset.row !== undefined) chooseRow(t);
    else chooseBar(t);
  });
  search.addEventListener("input", find);
  search.addEventListener("keydown", (e) => {
    if (e.key === "Enter") next(e.shiftKey ? -1 : 1);
    if (e.key === "Escape") { search.value = ""; find(); }
  });
  document.addEventListener("keydown", (e) => {
    const at = document.activeElement;
    if (at === search) return;
    if (e.key === "/") { e.preventDefault(); search.focus(); }
    if (e.key === "+" || e.key === "=") drawing()?.zoom(1.3);
    if (e.key === "-") drawing()?.zoom(1 / 1.3);
    if (e.key === "0") drawing()?.fit();
    if (e.key === "Escape") overview();
    if (e.key !== "Enter") return;
    if (at.dataset?.row !== undefined) chooseRow(at);
    else if (at.classList?.contains("box")) choose(at.dataset.key);
    else if (at.classList?.contains("bar")) chooseBar(at);
  });

  const wanted = decodeURIComponent(location.hash.slice(1));
  showTab(Math.max(0, page.tabs.findIndex((t) => t.name === wanted)));
})();
