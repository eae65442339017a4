"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("index").textContent);
  const count = data.ids.length, none = null;
  const list = byId("list"), space = byId("space"), one = byId("one"), help = byId("help");
  const CARD_PADDING = 14, HEAD = 22, CAPTION = 16, NAME = 18, GAP = 6, KEPT_PARTS = 64;
  const STAGE_KEYS = ["cam", "seed", "mask", "final", "truth"];
  const words = { ...data.stageWords, cam: "CAM", truth: "truth", photo: "image" };
  const state = { sort: 0, cls: -1, split: "", name: "", wrong: none, size: 96, shown: new Set(data.shown),
    hidden: new Set(), cam: 0, plain: false };
  const make = (tag, name, text) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const percent = (mille) => mille === none ? "-" : (mille / 10).toFixed(0);

  // --- pictures: parts of the page, or script files beside it, which are fetched when a card needs them
  const parts = new Map(), waiting = new Map(), lost = new Set();
  const arrived = (number, pictures) => {
    parts.delete(number);
    parts.set(number, pictures);
    for (const old of parts.keys()) {
      if (parts.size <= KEPT_PARTS) break;
      parts.delete(old);
    }
    const calls = waiting.get(number) || [];
    waiting.delete(number);
    calls.forEach((call) => call());
  };
  window.takePictures = arrived;
  const picturesOf = (row, whenThere) => {
    const number = data.parts[row];
    if (number < 0 || lost.has(number)) return {};
    if (parts.has(number)) return parts.get(number)[row] || {};
    if (!data.files.length) {
      arrived(number, JSON.parse(byId("pictures-" + number).textContent));
      return parts.get(number)[row] || {};
    }
    if (waiting.has(number)) { waiting.get(number).push(whenThere); return none; }
    waiting.set(number, [whenThere]);
    const script = document.createElement("script");
    script.src = data.files[number];
    script.onload = () => script.remove();
    script.onerror = () => {
      lost.add(number);
      notice.textContent = data.files[number] + " is not beside this page: copy the whole folder.";
      arrived(number, {});
    };
    document.head.append(script);
    return none;
  };

  // --- orders: name, values by row (null last), whether the smallest stands first
  const orders = [];
  const scoreOf = (source, stage) => data.scores[source + "." + stage];
  const has = (values) => values && values.some((value) => value !== none);
  const minus = (one, two) => one.map((value, row) => value === none || two[row] === none ? none : value - two[row]);
  const lastStage = (source) => [...data.sources[source].stages].reverse().find((stage) => has(scoreOf(source, stage)));
  const many = data.sources.length > 1;
  const order = (text, values, rising) => { if (has(values)) orders.push({ text, values, rising }); };
  const inOrder = [...data.shown, ...data.sources.keys()].filter((at, place, all) => all.indexOf(at) === place);
  for (const [first, other, stage] of data.compares) {
    const change = minus(scoreOf(other, stage), scoreOf(first, stage));
    const pair = data.sources[other].label + " against " + data.sources[first].label + ", " + words[stage];
    order("largest loss first: " + pair, change, true);
    order("largest gain first: " + pair, change, false);
  }
  for (const at of inOrder) {
    const label = many ? ", " + data.sources[at].label : "", stages = data.sources[at].stages;
    for (const stage of [...stages].reverse()) order("worst first: " + words[stage] + label, scoreOf(at, stage), true);
    stages.forEach((stage, place) => {
      if (place) order("lost most: " + words[stages[place - 1]] + " to " + words[stage] + label,
        minus(scoreOf(at, stage), scoreOf(at, stages[place - 1])), true);
    });
  }
  if (!data.compares.length) inOrder.forEach((at, place) => inOrder.slice(place + 1).forEach((other) => {
    const stage = lastStage(at);
    if (stage && has(scoreOf(other, stage))) {
      order("gained most: " + data.sources[at].label + " over " + data.sources[other].label,
        minus(scoreOf(at, stage), scoreOf(other, stage)), false);
      order("lost most: " + data.sources[at].label + " against " + data.sources[other].label,
        minus(scoreOf(at, stage), scoreOf(other, stage)), true);
    }
  }));
  order("disagree most: label maps of an image", data.disagreement, false);
  for (const at of inOrder) {
    const stage = lastStage(at);
    if (stage) order("best first: " + words[stage] + (many ? ", " + data.sources[at].label : ""), scoreOf(at, stage), false);
  }
  const firstClass = data.labels.map((labels) => labels.length ? labels[0] : none);
  order("by class", firstClass, true);
  orders.push({ text: "by name", values: none, rising: true });

  // --- which rows, in which order
  let rows = [];
  const wrongShare = (row) => {
    const found = data.wrong[state.wrong.key][row].find(([t, p]) => t === state.wrong.truth && p === state.wrong.said);
    return found ? found[2] : 0;
  };
  const select = () => {
    const needle = state.name.toLowerCase();
    rows = [];
    for (let row = 0; row < count; row++) {
      if (state.cls >= 0 && !data.labels[row].includes(state.cls)) continue;
      if (state.split && data.splits[row] !== state.split) continue;
      if (needle && !data.ids[row].toLowerCase().includes(needle)) continue;
      if (state.wrong && !wrongShare(row)) continue;
      rows.push(row);
    }
    if (state.wrong) rows.sort((a, b) => wrongShare(b) - wrongShare(a));
    else {
      const { values, rising } = orders[state.sort], sign = rising ? 1 : -1;
      const name = (a, b) => (data.ids[a] < data.ids[b] ? -1 : 1);
      rows.sort((a, b) => {
        const one = values && values[a], two = values && values[b];
        if (one === two) return name(a, b);
        return one === none ? 1 : two === none ? -1 : sign * (one - two);
      });
    }
  };

  // --- cards
  const shownStages = (at) => [...(data.sources[at].hasCams ? ["cam"] : []), ...data.sources[at].stages]
    .filter((stage) => !state.hidden.has(stage));
  const shownSources = () => [...data.sources.keys()].filter((at) => state.shown.has(at));
  let grid = { columns: 1, width: 0, height: 0, tile: 96, ahead: 1, across: 1, cards: new Map() };
  const measure = () => {
    const sources = shownSources(), ahead = 1 + (data.hasTruth && !state.hidden.has("truth") ? 1 : 0);
    const across = ahead + Math.max(0, ...sources.map((at) => shownStages(at).length));
    const room = list.clientWidth - 24;
    const tile = Math.min(state.size, Math.floor((room - 18) / across) - GAP);
    const width = across * (tile + GAP) - GAP + CARD_PADDING + 4;
    const lines = Math.max(1, sources.length), names = sources.length > 1 ? NAME + 2 : 0;
    const height = HEAD + CARD_PADDING + lines * (tile + CAPTION + names + 2);
    const columns = Math.max(1, Math.floor((room + 10) / (width + 10)));
    grid = { columns, width, height, tile, ahead, across, cards: grid.cards };
  };
  const image = (name, code, alt) => {
    const element = new Image();
    element.className = name;
    element.decoding = "async";
    element.alt = alt;
    element.src = "data:image/" + (code.startsWith("UklG") ? "webp" : "png") + ";base64," + code;
    return element;
  };
  const classOfCam = (row) => {
    const labels = data.labels[row];
    if (state.cls >= 0 && labels.includes(state.cls) && !state.cam) return state.cls;
    return labels.length ? labels[state.cam % labels.length] : -1;
  };
  const codeOf = (row, pictures, source, stage, cls) =>
    stage === "photo" ? none : stage === "truth" ? pictures.truth
      : pictures[source + (stage === "cam" ? ".cam." + cls : "." + stage)];
  const fill = (box, row, pictures, source, stage, cls) => {
    const what = words[stage] + (stage === "cam" && cls >= 0 ? " of " + data.classes[cls] : "");
    const who = source === none ? "" : ", " + data.sources[source].label;
    const code = codeOf(row, pictures, source, stage, cls);
    if (stage !== "photo" && !code) { box.replaceChildren(make("span", "", "none")); return; }
    const layers = pictures.photo ? [image("photo", pictures.photo, stage === "photo" ? what + " " + data.ids[row] : "")] : [];
    if (code) layers.push(image(stage === "cam" ? "heat" : "labels", code, what + " of " + data.ids[row] + who));
    box.classList.toggle("grey", Boolean(code));
    box.replaceChildren(...(layers.length ? layers : [make("span", "", "none")]));
  };
  const caption = (row, source, stage, cls) => {
    const text = make("figcaption");
    if (stage === "cam") text.textContent = cls < 0 ? "CAM" : "CAM: " + data.classes[cls];
    else {
      text.textContent = words[stage] + " ";
      const scores = source === none ? none : scoreOf(source, stage);
      if (scores && scores[row] !== none) text.append(make("b", "", percent(scores[row])));
    }
    text.title = text.textContent;
    return text;
  };
  const tile = (row, pictures, source, stage, cls, size) => {
    const figure = make("figure", "shot"), box = make("div", "picture-box");
    if (size) box.style.height = size + "px";
    if (pictures) fill(box, row, pictures, source, stage, cls);
    figure.append(box, caption(row, source, stage, cls));
    return figure;
  };
  const chip = (label) => {
    const found = make("span", "chip", ""), mark = make("i");
    mark.style.background = data.colours[label];
    found.append(mark, data.classes[label]);
    return found;
  };
  const chips = (row) => data.labels[row].map(chip);
  const card = (place) => {
    const row = rows[place], element = make("article", "card"), head = make("div", "card-head");
    element.tabIndex = place === focused ? 0 : -1;
    element.dataset.place = place;
    element.style.cssText = `width:${grid.width}px;height:${grid.height}px;left:${12 + (place % grid.columns) * (grid.width + 10)}px;`
      + `top:${10 + Math.floor(place / grid.columns) * (grid.height + 10)}px`;
    element.setAttribute("aria-label", data.ids[row] + ": " + data.labels[row].map((at) => data.classes[at]).join(", "));
    const name = make("b", "", data.ids[row]);
    name.title = data.ids[row];
    head.append(name, ...chips(row), make("span", "grow"));
    if (state.wrong) head.append(make("span", "chip", (wrongShare(row) / 10).toFixed(1) + " % of the image"));
    else if (data.splits[row]) head.append(make("span", "chip", data.splits[row]));
    const strip = make("div", "strip");
    strip.style.gridTemplateColumns = `repeat(${grid.across}, ${grid.tile}px)`;
    element.append(head, strip);
    const draw = () => {
      const pictures = picturesOf(row, () => { if (grid.cards.get(place) === element) draw(); });
      const sources = shownSources(), tiles = [];
      const first = ["photo", ...(grid.ahead > 1 ? ["truth"] : [])];
      if (!sources.length) first.forEach((stage) => tiles.push(tile(row, pictures, none, stage, -1, grid.tile)));
      sources.forEach((at, line) => {
        if (sources.length > 1) {
          const title = make("div", "source-name"), mark = make("span", "swatch");
          mark.style.background = data.sources[at].colour === "ink" ? "currentColor" : data.sources[at].colour;
          title.append(mark, data.sources[at].label);
          tiles.push(title);
        }
        if (!line) first.forEach((stage) => tiles.push(tile(row, pictures, none, stage, -1, grid.tile)));
        shownStages(at).forEach((stage, place) => {
          const figure = tile(row, pictures, at, stage, stage === "cam" ? classOfCam(row) : -1, grid.tile);
          if (!place) figure.style.gridColumnStart = grid.ahead + 1;
          tiles.push(figure);
        });
      });
      strip.replaceChildren(...tiles);
    };
    draw();
    return element;
  };
  let focused = 0, drawn = false;
  const paint = () => {
    drawn = false;
    const pitch = grid.height + 10, top = list.scrollTop, bottom = top + list.clientHeight;
    const from = Math.max(0, Math.floor((top - pitch) / pitch) * grid.columns);
    const until = Math.min(rows.length, Math.ceil((bottom + pitch) / pitch) * grid.columns);
    for (const [place, element] of grid.cards) {
      if (place < from || place >= until) { element.remove(); grid.cards.delete(place); }
    }
    for (let place = from; place < until; place++) {
      if (!grid.cards.has(place)) { const made = card(place); grid.cards.set(place, made); space.append(made); }
    }
  };
  const later = () => { if (!drawn) { drawn = true; requestAnimationFrame(paint); } };
  const notice = make("span", "");
  const redraw = (keepsRows) => {
    if (!keepsRows) { select(); focused = 0; list.scrollTop = 0; }
    measure();
    for (const element of grid.cards.values()) element.remove();
    grid.cards.clear();
    space.style.height = Math.ceil(rows.length / grid.columns) * (grid.height + 10) + 12 + "px";
    list.classList.toggle("plain", state.plain);
    one.classList.toggle("plain", state.plain);
    const said = make("span", "", `${rows.length} of ${count} images`);
    const shows = [said];
    if (state.wrong) {
      const name = (value) => value === 0 ? (data.hasBackground ? "background" : "nothing") : data.classes[value - 1];
      const [source, stage] = state.wrong.key.split(".");
      const undo = make("button", "", `true ${name(state.wrong.truth)}, ${words[stage]} of ${data.sources[source].label} `
        + `says ${name(state.wrong.said)} \u2715`);
      undo.type = "button";
      undo.title = "show all images again";
      undo.onclick = () => { state.wrong = none; redraw(); };
      shows.push(undo);
    }
    if (state.hidden.size) shows.push(make("span", "", "not shown: " + [...state.hidden].map((at) => words[at]).join(", ")));
    if (state.plain) shows.push(make("span", "", "overlays are off (o)"));
    byId("state").replaceChildren(...shows, notice);
    paint();
    remember();
  };

  // --- one image
  let open = -1, over = none;
  const choices = () => {
    const row = rows[open], found = [];
    if (data.hasTruth) found.push({ source: none, stage: "truth", cls: -1 });
    data.sources.forEach((source, at) => {
      if (source.hasCams) data.labels[row].forEach((cls) => found.push({ source: at, stage: "cam", cls }));
      source.stages.forEach((stage) => found.push({ source: at, stage, cls: -1 }));
    });
    return found;
  };
  const same = (a, b) => a && b && a.source === b.source && a.stage === b.stage && a.cls === b.cls;
  const overlayAgain = (found) => {
    if (!over || over.stage === "photo") return over;
    return found.find((choice) => same(choice, over))
      || found.find((choice) => choice.stage === over.stage && choice.source === over.source) || found[0];
  };
  const showOne = (place) => {
    open = place;
    const row = rows[place], found = choices();
    if (over === none) {
      const at = shownSources()[0] ?? 0, stages = data.sources.length ? data.sources[at].stages : [];
      over = found.find((choice) => choice.source === at && choice.stage === stages[stages.length - 1]) || found[0] || none;
    }
    over = overlayAgain(found);
    byId("one-name").textContent = data.ids[row];
    byId("one-classes").replaceChildren(...chips(row));
    const pictures = picturesOf(row, () => { if (open === place) showOne(place); });
    const large = byId("large"), said = byId("large-name");
    if (pictures) fill(large, row, pictures, over ? over.source : none, over ? over.stage : "photo", over ? over.cls : -1);
    said.textContent = over && over.stage !== "photo"
      ? words[over.stage] + (over.cls >= 0 ? " of " + data.classes[over.cls] : "")
        + (over.source === none ? "" : ", " + data.sources[over.source].label) : "image";
    byId("legend").replaceChildren(...(data.classes.length > 30 ? [] : data.classes.map((name, at) => chip(at))));
    const lines = [];
    const lineOf = (title, of) => {
      const line = make("div", "line"), block = make("div");
      if (title) block.append(make("div", "source-name", title));
      of.forEach((choice) => {
        const button = make("button", "shot" + (same(choice, over) ? " chosen" : "")), box = make("div", "picture-box");
        button.type = "button";
        button.setAttribute("aria-pressed", String(Boolean(same(choice, over))));
        if (pictures) fill(box, row, pictures, choice.source, choice.stage, choice.cls);
        button.append(box, caption(row, choice.source, choice.stage, choice.cls));
        button.onclick = () => { over = choice; showOne(place); };
        line.append(button);
      });
      block.append(line);
      lines.push(block);
    };
    lineOf("", [{ source: none, stage: "photo", cls: -1 }, ...found.filter((choice) => choice.source === none)]);
    data.sources.forEach((source, at) => lineOf(source.label, found.filter((choice) => choice.source === at)));
    byId("all").replaceChildren(...lines);
    if (!one.open) one.showModal();
    remember();
  };
  const step = (by) => { if (rows.length) { showOne(Math.max(0, Math.min(rows.length - 1, open + by))); } };
  one.addEventListener("close", () => { const place = open; open = -1; focusOn(place); remember(); });
  byId("close").onclick = () => one.close();
  byId("before").onclick = () => step(-1);
  byId("after").onclick = () => step(1);

  // --- keys
  const focusOn = (place) => {
    if (!rows.length) return;
    const before = grid.cards.get(focused);
    if (before) before.tabIndex = -1;
    focused = Math.max(0, Math.min(rows.length - 1, place));
    const top = Math.floor(focused / grid.columns) * (grid.height + 10);
    if (top < list.scrollTop) list.scrollTop = top;
    const end = top + grid.height + 20;
    if (end > list.scrollTop + list.clientHeight) list.scrollTop = end - list.clientHeight;
    paint();
    const element = grid.cards.get(focused);
    if (element) { element.tabIndex = 0; element.focus({ preventScroll: true }); }
  };
  const chooseStage = (stage) => {
    const found = choices(), at = over && over.source !== none ? over.source : shownSources()[0] ?? 0;
    const choice = found.find((one) => one.stage === stage && (one.source === at || one.source === none));
    if (choice) { over = choice; showOne(open); }
  };
  const nextOf = (fits) => {
    const found = choices().filter(fits), at = found.findIndex((choice) => same(choice, over));
    if (found.length) { over = found[(at + 1) % found.length]; showOne(open); }
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /INPUT|SELECT/.test(event.target.tagName) || help.open) return;
    const key = event.key, move = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -grid.columns, ArrowDown: grid.columns }[key];
    const stage = STAGE_KEYS[Number(key) - 1];
    if (key === "?") help.showModal();
    else if (key === "o") { state.plain = !state.plain; redraw(true); }
    else if (one.open) {
      if (move) step(Math.sign(move));
      else if (key === "0") { over = { source: none, stage: "photo", cls: -1 }; showOne(open); }
      else if (stage) chooseStage(stage);
      else if (key === "c") nextOf((choice) => choice.stage === "cam" && (!over || over.source === none || choice.source === over.source));
      else if (key === "s") nextOf((choice) => over && choice.stage === over.stage && choice.source !== none && (over.cls < 0 || choice.cls === over.cls));
      else return;
    }
    else if (move) focusOn(focused + move);
    else if (key === "Enter" && event.target.classList.contains("card")) showOne(Number(event.target.dataset.place));
    else if (key === "/") byId("name").focus();
    else if (key === "c") { state.cam++; redraw(true); }
    else if (stage) { if (!state.hidden.delete(stage)) state.hidden.add(stage); redraw(true); }
    else return;
    event.preventDefault();
  });
  list.addEventListener("click", (event) => {
    const found = event.target.closest(".card");
    if (found) { focused = Number(found.dataset.place); showOne(focused); }
  });

  // --- the bar, and the address: a link shows what it was made from
  const remember = () => {
    const said = new URLSearchParams();
    if (state.sort) said.set("sort", state.sort);
    if (state.cls >= 0) said.set("class", state.cls);
    if (state.split) said.set("split", state.split);
    if (state.name) said.set("name", state.name);
    if (state.wrong) said.set("wrong", [state.wrong.key, state.wrong.truth, state.wrong.said].join("."));
    if (open >= 0) said.set("image", data.ids[rows[open]]);
    // A page inside another's frame may not change its address.
    try { history.replaceState(none, "", "#" + said); } catch { return; }
  };
  const recall = () => {
    const said = new URLSearchParams(location.hash.slice(1));
    const wrong = (said.get("wrong") || "").split(".");
    state.wrong = wrong.length === 4 && data.wrong[wrong[0] + "." + wrong[1]]
      ? { key: wrong[0] + "." + wrong[1], truth: Number(wrong[2]), said: Number(wrong[3]) } : none;
    const asked = said.get("order"), found = orders.findIndex(({ values }) => asked && values === data.scores[asked]);
    state.sort = Math.min(orders.length - 1, Math.max(0, found >= 0 ? found : Number(said.get("sort")) || 0));
    state.cls = said.has("class") ? Number(said.get("class")) : -1;
    state.split = said.get("split") || "";
    state.name = said.get("name") || "";
    Object.entries({ sort: state.sort, class: state.cls, split: state.split, name: state.name })
      .forEach(([id, value]) => { byId(id).value = value; });
    redraw();
    const place = said.has("image") ? rows.findIndex((row) => data.ids[row] === said.get("image")) : -1;
    if (place >= 0) { focusOn(place); showOne(place); }
  };
  const options = (select, pairs) => select.replaceChildren(...pairs.map(([value, text]) => {
    const option = make("option", "", text);
    option.value = value;
    return option;
  }));
  options(byId("sort"), orders.map(({ text }, at) => [at, text]));
  const tagged = data.classes.map((name, at) => [at, `${name} (${data.labels.filter((labels) => labels.includes(at)).length})`]);
  options(byId("class"), [[-1, "all classes"], ...tagged]);
  const splits = [...new Set(data.splits)].sort();
  options(byId("split"), [["", "all images"], ...splits.map((name) => [name, name])]);
  byId("split-label").hidden = splits.length < 2;
  const bind = (id, change) => byId(id).addEventListener(id === "name" ? "input" : "change", (event) => change(event.target.value));
  bind("sort", (value) => { state.sort = Number(value); state.wrong = none; redraw(); });
  bind("class", (value) => { state.cls = Number(value); state.cam = 0; redraw(); });
  bind("split", (value) => { state.split = value; redraw(); });
  bind("name", (value) => { state.name = value; redraw(); });
  bind("size", (value) => { state.size = Number(value); redraw(true); });
  byId("bar").addEventListener("submit", (event) => event.preventDefault());
  byId("help-button").onclick = () => help.showModal();
  if (many) data.sources.forEach((source, at) => {
    const label = make("label"), box = make("input"), mark = make("span", "swatch");
    box.type = "checkbox";
    box.checked = state.shown.has(at);
    box.onchange = () => { if (!state.shown.delete(at)) state.shown.add(at); redraw(true); };
    mark.style.background = source.colour === "ink" ? "currentColor" : source.colour;
    label.append(box, mark, source.label);
    byId("sources").append(label);
  });
  list.addEventListener("scroll", later, { passive: true });
  addEventListener("resize", () => redraw(true));
  addEventListener("hashchange", recall);
  recall();
})();
