"use strict";
// The plane of embeddings: a Poincaré disk where the space is hyperbolic, a plain projection elsewhere.

function diskView(model) {
  const { plane, geometry, cones, images } = model;
  const root = Math.sqrt(geometry.curv || 0);
  const hyperbolic = geometry.curv !== null;
  const far = Math.max(...plane.points.map((p) => (geometry.root ? p.radius : Math.hypot(p.x, p.y)))) || 1;
  // Distance from the centre -> radius on the page.
  const onPage = hyperbolic ? (d) => Math.tanh((root * d) / 2) : (d) => d / far / 1.02;
  const coneOf = new Map((cones || []).map((cone) => [cone.apex, cone]));
  const state = { own: geometry.root, zoom: 1, x: 0, y: 0, selected: null, focus: 0, show: { image: true, text: true } };
  let pixel = 1.5; // units of the drawing in a pixel of the screen
  let places = [];

  const rings = s("g", { class: "rings", "aria-hidden": "true" });
  const coneLayer = s("g", { class: "cone" });
  const marks = plane.points.map((point, i) => {
    const image = images[point.image];
    const label = point.modality === "text" ? `text: ${image.caption}` : `image ${image.key}: ${image.caption}`;
    return fill(s("g", {
      class: `point ${point.modality}`, tabindex: i === 0 ? "0" : "-1", role: "button", "data-point": i,
      "aria-label": `${label}; ${geometry.radius} ${short(point.radius)}`,
      onpointerenter: (event) => hover(i, event.clientX, event.clientY),
      onpointerleave: () => tip.hide(),
      onfocus: () => { state.focus = i; const box = marks[i].getBoundingClientRect(); hover(i, box.right, box.bottom); },
      onblur: () => tip.hide(),
    }), {}, [mark(point.modality, 4.6)]);
  });
  const layer = s("g", {}, rings, coneLayer, s("g", {}, marks));
  const svg = s("svg", { viewBox: "-500 -500 1000 1000", class: hyperbolic ? "disk" : "disk flat", role: "group", "aria-label": "Images and texts in the plane. Arrow keys go from point to point, Enter selects, plus and minus zoom, Escape clears." }, layer);
  const panel = h("div", { class: "panel", "aria-live": "polite" });

  function place(point) {
    const length = Math.hypot(point.x, point.y) || 1e-12;
    const r = onPage(state.own ? point.radius : length) * 470;
    return [(point.x / length) * r, (-point.y / length) * r];
  }

  function hover(i, x, y) {
    const point = plane.points[i];
    const image = images[point.image];
    tip.show(x, y, picture(image, 72), h("div", {}, h("b", {}, point.modality), h("p", {}, image.caption), h("small", {}, `${geometry.radius}: ${short(point.radius)}`)));
  }

  function draw() {
    places = plane.points.map(place);
    layer.setAttribute("transform", `translate(${state.x} ${state.y}) scale(${state.zoom})`);
    const size = (Math.min(1.6, Math.max(1, 0.9 + 0.2 / pixel)) * pixel) / state.zoom;
    marks.forEach((element, i) => {
      element.setAttribute("transform", `translate(${places[i][0].toFixed(2)} ${places[i][1].toFixed(2)}) scale(${size})`);
      element.toggleAttribute("hidden", !state.show[plane.points[i].modality]);
    });
    drawRings();
    drawSelection();
  }

  function drawRings() {
    const values = geometry.root || !hyperbolic ? ticks(0, far, 4).filter((value) => value > 0) : [];
    const width = 1 / state.zoom;
    rings.replaceChildren(
      ...(hyperbolic ? [s("circle", { class: "edge", r: 470, "stroke-width": 2.5 * width })] : []),
      ...values.map((value) => s("circle", { class: "ring", r: onPage(value) * 470, "stroke-width": 1.4 * width })),
      ...values.map((value) => s("text", { y: -onPage(value) * 470 - 4 * pixel * width, "text-anchor": "middle", "font-size": 12.5 * pixel * width }, number(value))),
      s("path", { class: "origin", d: `M${-9 * width} 0H${9 * width}M0 ${-9 * width}V${9 * width}`, "stroke-width": 2.5 * width }));
  }

  // A point at distance t along the geodesic that leaves (x, y) under an angle, in a disk of radius 1.
  function along(x, y, angle, t) {
    const q = Math.tanh(t / 2);
    const [u, v] = [q * Math.cos(angle), q * Math.sin(angle)];
    const dot = x * u + y * v;
    const [p2, q2] = [x * x + y * y, q * q];
    const k = 1 + 2 * dot + p2 * q2;
    return [((1 + 2 * dot + q2) * x + (1 - p2) * u) / k, ((1 + 2 * dot + q2) * y + (1 - p2) * v) / k];
  }

  function coneShape(i, aperture) {
    const [x, y] = places[i];
    const out = Math.atan2(y, x);
    const edge = (side) => {
      if (!hyperbolic) return [[x, y], [x + 2000 * Math.cos(out + side * aperture), y + 2000 * Math.sin(out + side * aperture)]];
      return Array.from({ length: 41 }, (_, k) => along(x / 470, y / 470, out + side * aperture, (k / 40) * 9).map((v) => v * 470));
    };
    const [left, right] = [edge(1), edge(-1)];
    const [from, to] = [left[left.length - 1], right[right.length - 1]];
    const arc = hyperbolic ? `A470 470 0 ${largeArc(from, to, out)} 0 ${to.join(" ")}` : `L${to.join(" ")}`;
    return `M${left.map((p) => p.map((v) => v.toFixed(2)).join(" ")).join("L")}${arc}L${right.reverse().map((p) => p.map((v) => v.toFixed(2)).join(" ")).join("L")}Z`;
  }

  function largeArc(from, to, out) {
    const turn = (p) => { let a = Math.atan2(p[1], p[0]) - out; while (a < 0) a += 2 * Math.PI; return a; };
    const span = (turn(from) - turn(to) + 4 * Math.PI) % (2 * Math.PI);
    return span > Math.PI ? 1 : 0;
  }

  function partner(i) {
    const { image, modality } = plane.points[i];
    return plane.points.findIndex((other) => other.image === image && other.modality !== modality);
  }

  function drawSelection() {
    const i = state.selected;
    const cone = i === null ? null : coneOf.get(i);
    const inside = new Set(cone ? cone.holds : []);
    const other = i === null ? -1 : partner(i);
    svg.classList.toggle("selecting", i !== null);
    marks.forEach((element, k) => {
      element.classList.toggle("selected", k === i);
      element.classList.toggle("inside", inside.has(k));
      element.classList.toggle("partner", k === other);
      element.setAttribute("aria-pressed", k === i ? "true" : "false");
    });
    const width = 1 / state.zoom;
    coneLayer.replaceChildren(
      ...(cone && geometry.factors <= 1 ? [s("path", { class: "wedge", d: coneShape(i, cone.half_aperture), "stroke-width": 2 * width })] : []),
      ...(other >= 0 ? [s("line", { class: "pair", x1: places[i][0], y1: places[i][1], x2: places[other][0], y2: places[other][1], "stroke-width": 2 * width })] : []));
    panel.replaceChildren(...describe(i, cone, other));
    choice.value = cone || (i !== null && plane.points[i].modality === "text") ? String(i) : "";
  }

  function describe(i, cone, other) {
    if (i === null) return [h("p", { class: "hint" }, "Point at a mark to see its image and caption; select a text to ", cones ? (geometry.factors > 1 ? "see what its entailment cone holds." : "draw its entailment cone.") : "see its image.")];
    const point = plane.points[i];
    const image = images[point.image];
    const facts = [["selected", point.modality], [geometry.radius, short(point.radius)]];
    if (other >= 0) facts.push([`of its ${plane.points[other].modality}`, short(plane.points[other].radius)]);
    if (cone) {
      const held = cone.holds.filter((k) => plane.points[k].modality === "image").length;
      const total = plane.points.filter((p) => p.modality === "image").length;
      facts.push(["half aperture", `${short((cone.half_aperture * 180) / Math.PI)}°`]);
      facts.push(["angle to its own image", `${short((cone.own_angle * 180) / Math.PI)}°, ${cone.holds.includes(other) ? "inside" : "outside"}`]);
      facts.push(["images in the cone", `${held} of ${total}`]);
    }
    return [picture(image, 120), h("p", { class: "caption" }, image.caption), definitions(facts)];
  }

  function select(i) {
    state.selected = state.selected === i ? null : i;
    drawSelection();
  }

  function zoom(factor, x = 0, y = 0) {
    const next = Math.max(0.8, Math.min(40, state.zoom * factor));
    const k = next / state.zoom;
    state.x = x - (x - state.x) * k;
    state.y = y - (y - state.y) * k;
    state.zoom = next;
    draw();
  }

  // The whole disk, unless all marks lie so near the centre that nothing would be seen; or as large as they fit.
  function reset() {
    const most = Math.max(...plane.points.map((point) => Math.hypot(...place(point))), 1);
    view(most < 150 || svg.clientWidth < 480 ? 440 / most : 1);
  }
  const fit = () => view(440 / Math.max(...places.map(([x, y]) => Math.hypot(x, y)), 1));

  function view(zoomed) {
    [state.zoom, state.x, state.y] = [Math.max(1, Math.min(40, zoomed)), 0, 0];
    draw();
  }

  const unit = (event) => {
    const area = svg.getBoundingClientRect();
    return [((event.clientX - area.left) / area.width) * 1000 - 500, ((event.clientY - area.top) / area.height) * 1000 - 500];
  };
  const held = new Map();
  let moved = 0;
  let entered = false; // the wheel scrolls the page until the disk is pressed
  svg.addEventListener("pointerleave", () => { entered = false; });
  svg.addEventListener("pointerdown", (event) => {
    entered = true;
    held.set(event.pointerId, unit(event));
    moved = 0;
  });
  svg.addEventListener("pointermove", (event) => {
    if (!held.has(event.pointerId)) return;
    const now = unit(event);
    const before = held.get(event.pointerId);
    if (held.size === 2) {
      const [other] = [...held].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
      const ratio = Math.hypot(now[0] - other[0], now[1] - other[1]) / (Math.hypot(before[0] - other[0], before[1] - other[1]) || 1);
      zoom(ratio, other[0], other[1]);
    } else {
      state.x += now[0] - before[0];
      state.y += now[1] - before[1];
      if (moved > 6) draw();
    }
    moved += Math.hypot(now[0] - before[0], now[1] - before[1]);
    held.set(event.pointerId, now);
    if (moved > 6 && !svg.hasPointerCapture(event.pointerId)) svg.setPointerCapture(event.pointerId);
  });
  const release = (event) => held.delete(event.pointerId);
  svg.addEventListener("pointerup", release);
  svg.addEventListener("pointercancel", release);
  svg.addEventListener("click", (event) => {
    if (moved > 6) return;
    const hit = event.target.closest("[data-point]");
    if (hit) select(Number(hit.getAttribute("data-point")));
    else if (state.selected !== null) select(state.selected);
  });
  svg.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !entered) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 400), ...unit(event));
  }, { passive: false });

  // The nearest visible mark in a direction, sideways distance counting double.
  function neighbour(dx, dy) {
    const [x, y] = places[state.focus];
    let best = null;
    let least = Infinity;
    places.forEach(([px, py], i) => {
      if (i === state.focus || !state.show[plane.points[i].modality]) return;
      const ahead = (px - x) * dx + (py - y) * dy;
      const aside = Math.abs((px - x) * dy - (py - y) * dx);
      if (ahead <= 0.01 || aside > ahead * 2) return;
      if (ahead + 2 * aside < least) [best, least] = [i, ahead + 2 * aside];
    });
    return best;
  }
  svg.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const next = way && neighbour(...way);
    if (way) {
      if (next !== null) {
        marks[state.focus].setAttribute("tabindex", "-1");
        marks[next].setAttribute("tabindex", "0");
        marks[next].focus();
      }
    } else if (event.key === "Enter" || event.key === " ") select(state.focus);
    else if (event.key === "+" || event.key === "=") zoom(1.4);
    else if (event.key === "-") zoom(1 / 1.4);
    else if (event.key === "0") reset();
    else if (event.key === "Escape") { tip.hide(); if (state.selected !== null) select(state.selected); }
    else return;
    event.preventDefault();
  });

  const choice = h("select", {
    id: "disk-text",
    onchange: () => { state.selected = choice.value === "" ? null : Number(choice.value); drawSelection(); },
  }, h("option", { value: "" }, "none"),
    plane.points.map((point, i) => point.modality === "text" && h("option", { value: i }, images[point.image].caption.slice(0, 90))));
  const check = (kind, label) => h("label", {}, h("input", { type: "checkbox", checked: true, onchange: (event) => { state.show[kind] = event.target.checked; draw(); } }),
    s("svg", { viewBox: "-8 -8 16 16", class: "key", "aria-hidden": "true" }, mark(kind)), label);
  const radio = (own, label) => h("label", {}, h("input", { type: "radio", name: "disk-radius", checked: own === state.own, onchange: () => { state.own = own; reset(); } }), label);
  const controls = h("div", { class: "controls" },
    h("div", { class: "group" }, check("image", "images"), check("text", "texts")),
    geometry.root && h("div", { class: "group", role: "radiogroup", "aria-label": "Distance from the centre" }, h("span", {}, "distance from the centre:"), radio(true, "the model's"), radio(false, "projected")),
    h("div", { class: "group" }, h("label", { for: "disk-text" }, "text"), choice),
    h("div", { class: "group buttons" },
      h("button", { type: "button", "aria-label": "Zoom in", onclick: () => zoom(1.4) }, "+"),
      h("button", { type: "button", "aria-label": "Zoom out", onclick: () => zoom(1 / 1.4) }, "−"),
      h("button", { type: "button", onclick: fit }, "Fit"),
      h("button", { type: "button", onclick: reset }, "Reset")));
  reset();
  new ResizeObserver(() => {
    const before = pixel;
    pixel = 1000 / (svg.clientWidth || 660);
    if (state.x === 0 && state.y === 0 && before === 1.5) reset();
    else draw();
  }).observe(svg);
  return h("figure", { class: "wide", id: "disk" }, h("h3", {}, hyperbolic ? "The Poincaré disk" : "The plane of the embeddings"), controls,
    h("div", { class: "diskrow" }, svg, panel), h("figcaption", {}, diskNote(model)));
}

function diskNote({ plane, geometry, cones }) {
  const kept = `${number(100 * plane.variance_kept, "%")}%`;
  const way = plane.method === "horopca"
    ? `HoroPCA: a plane through the root found through horospherical projections; it keeps ${kept} of the mean squared distance between points`
    : `Tangent PCA: the two widest directions of the flat coordinates; they keep ${kept} of the variance of ${geometry.dim} dimensions`;
  const kind = geometry.curv !== null ? "The centre is the root, and the circle is infinitely far away."
    : geometry.factors > 1 ? "A product of spaces has no disk of its own: this is a plain projection of its tangent space, straight lines and all."
    : geometry.root ? "The space is flat: this is a plain projection, and the centre is the root."
    : "The embeddings lie on a sphere, which has no root: this is a plain projection about their mean.";
  const own = !geometry.root ? ""
    : ` “The model's” distance puts every mark as far from the centre as the model does in all dimensions, in the direction of its projection; “projected” marks keep ${plane.root_distance_kept === null ? "less" : `${number(100 * plane.root_distance_kept, "%")}%`} of it on average.`;
  const cone = cones && geometry.factors > 1 ? " The cone of a text is a product of cones: it is not drawn, but the marks it holds in all factors are ringed."
    : cones ? " A cone is drawn with the model's aperture; which marks it holds (ringed) is computed in all dimensions, so a ringed mark can lie outside the drawn wedge." : "";
  return `${kind} ${way}.${own}${cone}`;
}
