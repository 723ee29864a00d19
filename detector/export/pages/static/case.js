"use strict";
// One case: its views as they hang, marks over them, and a panel in which a reader decides.
// Places are (row, col) in the stored image, pixel centres at integers; a view may be mirrored.

const CASE = JSON.parse(byId("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const SPOTS_FROM_PX_PER_MM = 12; // under it the spots of a cluster lie too close for rings of their own
const CROP_MM = 12;
const TOOL_MM = 10;
const MOST_ENLARGED = 8; // px of the screen a pixel, as the view goes to a cluster
const KINDS = ["review", "other", "micro", "macro", "unknown", "mine"];
const NAMES = { R: "Right", L: "Left" };

function svg(name, attributes = {}, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}

function nameOf(view) {
  return [view.side || "?", view.view || "view unknown"].join(" ");
}

function rounded(value, unit, digits = 1) {
  return value === null || value === undefined ? null : `${value.toFixed(digits)} ${unit}`;
}

// Convex hull of [x, y] points (Andrew 1979, doi 10.1016/0020-0190(79)90072-3).
function hull(points) {
  const sorted = [...points].sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const turn = (o, a, b) => (a[0] - o[0]) * (b[1] - o[1]) - (a[1] - o[1]) * (b[0] - o[0]);
  const half = (list) => {
    const line = [];
    for (const point of list) {
      while (line.length > 1 && turn(line[line.length - 2], line[line.length - 1], point) <= 0) line.pop();
      line.push(point);
    }
    return line.slice(0, -1);
  };
  return sorted.length < 3 ? sorted : [...half(sorted), ...half(sorted.reverse())];
}

function inside([x, y], polygon) {
  let within = false;
  for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
    const [[xi, yi], [xj, yj]] = [polygon[i], polygon[j]];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) within = !within;
  }
  return within;
}

const COMPASS = Array.from({ length: 16 }, (_, i) => [Math.cos((i * Math.PI) / 8), Math.sin((i * Math.PI) / 8)]);

// ---------------------------------------------------------------------------------------------------------- views

class View {
  constructor(data, index) {
    Object.assign(this, { data, index, osd: null, ready: false });
    const packed = byId(`picture-${index}`);
    this.url = packed ? `data:image/jpeg;base64,${packed.textContent}` : "";
    this.mmPerPx = data.spacing_mm ? data.spacing_mm[1] : null;
    this.outer = data.side === "L" ? "right" : "left"; // away from the chest wall
    this.screen = element("div", { class: "screen" });
    this.bar = element("div", { class: "bar-mm" });
    const modifiers = data.modifiers.join(", ");
    const notes = [modifiers, data.excluded && "does not count: same exposure", data.turn.some(Boolean) && "shown mirrored"];
    this.element = element(
      "section",
      { class: `view outer-${this.outer}`, tabindex: 0, "data-view": index, "aria-label": this.label() },
      this.screen,
      element("div", { class: "name" }, element("b", {}, nameOf(data)),
        ...notes.filter(Boolean).map((note) => element("small", {}, note, element("br")))),
      this.url ? null : element("p", { class: "none" }, "No picture of this view was made.", element("br"), data.path),
      this.bar,
    );
    this.marks = svg("svg", { class: "marks", "aria-hidden": "true" });
    this.shapes = [];
    this.element.addEventListener("focus", () => page.focus(this));
  }

  label() {
    const { data } = this;
    const flagged = data.clusters.filter((c) => c.review).length;
    return [NAMES[data.side] || "Side unknown", data.view || "view unknown", ...data.modifiers].join(" ")
      + (page.hiding ? "" : `: ${counted(data.clusters.length, "cluster")}, ${flagged} for review`);
  }

  get image() { // for crops
    if (!this.decoded) {
      this.decoded = new Image();
      this.decoded.src = this.url;
    }
    return this.decoded;
  }

  open() {
    if (this.osd || !this.url) return;
    this.osd = OpenSeadragon({
      element: this.screen,
      tileSources: { type: "image", url: this.url },
      drawer: "canvas",
      showNavigationControl: false,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: false },
      gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: false },
      gestureSettingsPen: { clickToZoom: false, dblClickToZoom: false },
      animationTime: matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 0.25,
      springStiffness: 10,
      blendTime: 0,
      visibilityRatio: 0.1,
      minZoomImageRatio: 0.3,
      maxZoomPixelRatio: 12,
      zoomPerScroll: 1.25,
      constrainDuringPan: false,
      tabIndex: "",
    });
    this.osd.innerTracker.keyDownHandler = this.osd.innerTracker.keyHandler = null; // keys are those of the page
    // the picture is one tile: stretched by a pixel against seams, as tiles are, it would not lie under its marks
    this.osd.drawer.minimumOverlapRequired = () => false;
    this.osd.canvas.removeAttribute("tabindex");
    this.osd.canvas.append(this.marks);
    this.osd.addHandler("open", () => {
      this.ready = true;
      this.grey();
      page.fit();
      page.opened(this);
    });
    this.osd.addHandler("update-viewport", () => {
      this.smooth();
      this.place();
    });
    // only what the reader does is followed by the other views; OpenSeadragon zooms as it opens, too
    for (const name of ["canvas-scroll", "canvas-pinch"]) {
      this.osd.addHandler(name, ({ position, center }) => {
        this.zoomedAt = position || center;
      });
    }
    this.osd.addHandler("zoom", () => {
      if (this.zoomedAt) page.zoomed(this, this.zoomedAt);
      this.zoomedAt = null;
    });
    this.osd.addHandler("resize", () => setTimeout(() => page.refit(), 0));
    this.osd.addHandler("canvas-press", (event) => {
      this.element.focus({ preventScroll: true });
      tool.press(this, event);
    });
    this.osd.addHandler("canvas-drag", (event) => {
      page.fitted = false;
      tool.drag(this, event);
    });
    this.osd.addHandler("canvas-drag-end", (event) => tool.release(this, event));
    this.osd.addHandler("canvas-release", (event) => tool.release(this, event));
    this.osd.addHandler("canvas-click", (event) => event.quick && this.click(event.position));
    this.osd.addHandler("canvas-double-click", (event) => this.zoomAt(event.position));
  }

  close() {
    if (this.osd) this.osd.destroy();
    this.osd = null;
    this.ready = false;
  }

  // Cubic: the browser's quick way shifts what is enlarged, by up to a sixteenth of a pixel.
  smooth() {
    const { context } = this.osd.drawer;
    if (context.imageSmoothingQuality === "high") return;
    context.imageSmoothingQuality = "high";
    this.osd.forceRedraw();
  }

  grey() {
    if (this.osd?.drawer) this.osd.drawer.canvas.style.filter = page.filter();
  }

  // ------------------------------------------------------------------------------------------------- geometry

  // Corner and scale of the picture in px of the screen.
  frame() {
    const { viewport } = this.osd;
    const zero = viewport.pixelFromPoint(new OpenSeadragon.Point(0, 0), true);
    const one = viewport.pixelFromPoint(new OpenSeadragon.Point(1, 0), true);
    return { x: zero.x, y: zero.y, scale: (one.x - zero.x) / this.data.cols };
  }

  mirrored(row, col) { // (x, y) in pixels of the picture, whose corner is that of its first pixel
    const { rows, cols, turn } = this.data;
    return [(turn[1] ? cols - 1 - col : col) + 0.5, (turn[0] ? rows - 1 - row : row) + 0.5];
  }

  toScreen(row, col, frame = this.frame()) {
    const [x, y] = this.mirrored(row, col);
    return [frame.x + x * frame.scale, frame.y + y * frame.scale];
  }

  toImage(position) { // (row, col)
    const { x, y, scale } = this.frame();
    const { rows, cols, turn } = this.data;
    const [col, row] = [(position.x - x) / scale - 0.5, (position.y - y) / scale - 0.5];
    return [turn[0] ? rows - 1 - row : row, turn[1] ? cols - 1 - col : col];
  }

  // What is fitted: the breast, or the whole picture; its edges in pixels of the picture.
  box() {
    const { rows, cols, breast } = this.data;
    if (!breast || page.whole) return { left: 0, right: cols, top: 0, bottom: rows };
    const [[x0, y0], [x1, y1]] = breast.map(([row, col]) => this.mirrored(row, col));
    const air = 0.02 * Math.max(Math.abs(x1 - x0), Math.abs(y1 - y0)); // not at the chest wall
    const { side } = this.data;
    return {
      left: Math.max(0, Math.min(x0, x1) - (side === "L" ? 0.5 : air)), right: Math.min(cols, Math.max(x0, x1) + (side === "R" ? 0.5 : air)),
      top: Math.max(0, Math.min(y0, y1) - air), bottom: Math.min(rows, Math.max(y0, y1) + air),
    };
  }

  // Shows the view at so many px of the screen a pixel, with its chest wall in the middle of the hanging.
  fit(scale) {
    const { cols, side } = this.data;
    const { x: wide, y: high } = this.osd.viewport.getContainerSize();
    const { left, right, top, bottom } = this.box();
    const x = side === "R" ? right - wide / scale : side === "L" ? left : (left + right - wide / scale) / 2;
    const y = (top + bottom - high / scale) / 2;
    const rect = [x, y, wide / scale, high / scale].map((value) => value / cols);
    this.osd.viewport.fitBounds(new OpenSeadragon.Rect(...rect), true);
  }

  fittingScale() { // px of the screen a unit: a mm, or a pixel where its size is unknown
    const { x: wide, y: high } = this.osd.viewport.getContainerSize();
    const { left, right, top, bottom } = this.box();
    return Math.min(wide / (right - left), high / (bottom - top)) / (this.mmPerPx || 1);
  }

  // Zooms to so many px of the screen a unit, about a place given in shares of the view's width and height.
  setScale(perUnit, [across, down]) {
    const { viewport } = this.osd;
    const { x: wide, y: high } = viewport.getContainerSize();
    const zoom = (perUnit * (this.mmPerPx || 1) * this.data.cols) / wide;
    viewport.zoomTo(zoom, viewport.pointFromPixel(new OpenSeadragon.Point(across * wide, down * high)));
  }

  zoomBy(factor, position = null) {
    const { viewport } = this.osd;
    this.zoomedAt = position || this.middle();
    viewport.zoomBy(factor, viewport.pointFromPixel(this.zoomedAt));
    this.zoomedAt = null;
  }

  scaleWanted() {
    const { viewport } = this.osd;
    return (viewport.getZoom(false) * viewport.getContainerSize().x) / this.data.cols / (this.mmPerPx || 1);
  }

  goTo(row, col, perUnit) {
    const { rows, cols } = this.data;
    const { x: wide, y: high } = this.osd.viewport.getContainerSize();
    const scale = perUnit * (this.mmPerPx || 1);
    const [x, y] = this.mirrored(row, col);
    const [width, height] = [wide / (scale * cols), high / (scale * cols)];
    this.osd.viewport.fitBounds(new OpenSeadragon.Rect(x / cols - width / 2, y / cols - height / 2, width, height));
  }

  middle() { // of what is to be seen of the picture, in px of the screen
    const { x: wide, y: high } = this.osd.viewport.getContainerSize();
    const { x, y, scale } = this.frame();
    const [left, right] = [Math.max(0, x), Math.min(wide, x + scale * this.data.cols)];
    const [top, bottom] = [Math.max(0, y), Math.min(high, y + scale * this.data.rows)];
    return new OpenSeadragon.Point((left + right) / 2, (top + bottom) / 2);
  }

  zoomAt(position) {
    if (!tool.name) this.zoomBy(2, position);
  }

  // ---------------------------------------------------------------------------------------------------- marks

  // Makes the marks anew: what is marked has changed.
  mark() {
    this.shapes = [];
    this.marks.replaceChildren();
    const add = (place, ...nodes) => {
      this.marks.append(...nodes);
      this.shapes.push({ place, nodes });
    };
    for (const spot of this.data.spots) add(this.spotMark(spot), ...this.spotNodes(spot));
    for (const cluster of [...this.data.clusters].reverse()) this.clusterMark(cluster, add);
    for (const drawn of page.drawn(this)) this.drawnMark(drawn, add);
    tool.mark(this, add);
    this.element.setAttribute("aria-label", this.label());
    if (this.ready) this.place();
  }

  spotNodes(spot) {
    const doubt = spot.sure ? "" : " unsure-spot";
    return [svg("path", { class: `edge ${spot.kind}` }), svg("path", { class: `${spot.kind}${doubt}`, "data-spot": spot.id })];
  }

  spotMark(spot) {
    return (nodes, frame, perMm) => {
      const [x, y] = this.toScreen(spot.row, spot.col, frame);
      const r = Math.max(spot.reach * frame.scale + 4, 5);
      const hidden = (spot.cluster > 0 && perMm < SPOTS_FROM_PX_PER_MM) || !this.sees(x, y, r);
      for (const node of nodes) node.toggleAttribute("hidden", hidden);
      for (const node of nodes) node.style.display = hidden ? "none" : "";
      if (hidden) return;
      nodes.forEach((node, i) => node.setAttribute("d", markOf(spot, x, y, r + 1 - i))); // the black edge lies outside
    };
  }

  sees(x, y, r) {
    const { x: wide, y: high } = this.osd.viewport.getContainerSize();
    return x > -r && y > -r && x < wide + r && y < high + r;
  }

  clusterMark(cluster, add) {
    const kind = cluster.review ? "review" : "other";
    const chosen = page.isChosen(this, cluster) ? ` chosen${page.pulse ? " chosen-mark" : ""}` : "";
    const nodes = [
      svg("polygon", { class: `edge ${kind}` }),
      svg("polygon", { class: kind + chosen, "data-cluster": cluster.id }),
      svg("text", { class: kind }, `${cluster.id} ${cluster.level}`),
    ];
    add(([edge, line, label], frame) => {
      cluster.onScreen = this.outlineOf(cluster, frame, 7);
      const points = cluster.onScreen.map((p) => p.map((v) => v.toFixed(1)).join(",")).join(" ");
      edge.setAttribute("points", points);
      line.setAttribute("points", points);
      this.letter(label, cluster.onScreen);
    }, ...nodes);
  }

  outlineOf(cluster, frame, margin) {
    const points = [...cluster.outline, [cluster.row, cluster.col]].map(([row, col]) => this.toScreen(row, col, frame));
    return hull(hull(points).flatMap(([x, y]) => COMPASS.map(([dx, dy]) => [x + margin * dx, y + margin * dy])));
  }

  letter(label, outline) { // beside an outline, on its outer side, within the view
    const xs = outline.map(([x]) => x);
    const ys = outline.map(([, y]) => y);
    const { x: wide, y: high } = this.osd.viewport.getContainerSize();
    const away = Math.max(...xs) < 0 || Math.min(...xs) > wide || Math.max(...ys) < 0 || Math.min(...ys) > high;
    label.style.display = away ? "none" : "";
    const toLeft = this.outer === "left" ? Math.min(...xs) > 80 : Math.max(...xs) > wide - 80;
    label.setAttribute("text-anchor", toLeft ? "end" : "start");
    label.setAttribute("x", toLeft ? Math.min(...xs) - 5 : Math.max(...xs) + 5);
    label.setAttribute("y", Math.max(16, (Math.min(...ys) + Math.max(...ys)) / 2 + 4));
  }

  drawnMark(drawn, add) {
    const chosen = page.chosen?.subject === subject(drawn) ? " chosen" : "";
    const ring = svg("circle", { class: `mine${chosen}`, "data-drawn": drawn.cluster_id });
    const label = svg("text", { class: "mine" }, drawn.reviewer === decisions.reviewer ? "mine" : drawn.reviewer);
    add(([node, text], frame) => {
      const [x, y] = this.toScreen(Number(drawn.row_px), Number(drawn.col_px), frame);
      const r = Math.max(4, Number(drawn.radius_px) * frame.scale);
      drawn.onScreen = [x, y, r];
      setAll(node, { cx: x, cy: y, r });
      setAll(text, { x: x + r + 4, y: y + 4 });
    }, ring, label);
  }

  // Puts the marks where the picture now is.
  place() {
    if (!this.ready || !this.osd) return;
    const frame = this.frame();
    const perMm = this.mmPerPx ? frame.scale / this.mmPerPx : frame.scale / 0.1;
    for (const { place, nodes } of this.shapes) place(nodes, frame, perMm);
    this.scaleBar(frame);
  }

  scaleBar(frame) {
    if (!this.mmPerPx) {
      this.bar.textContent = "size unknown";
      return;
    }
    const perMm = frame.scale / this.mmPerPx;
    const mm = [50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1].find((length) => length * perMm < 120) ?? 0.1;
    if (!this.bar.firstChild?.style) this.bar.replaceChildren(element("i"), document.createTextNode(""));
    this.bar.firstChild.style.width = `${mm * perMm}px`;
    const words = `${mm} mm`;
    if (this.bar.lastChild.data !== words) this.bar.lastChild.data = words;
  }

  click(position) {
    if (tool.name) return;
    const point = [position.x, position.y];
    const drawn = page.drawn(this).find(({ onScreen: s }) => s && Math.hypot(s[0] - point[0], s[1] - point[1]) <= s[2] + 4);
    const cluster = page.hiding ? null : this.data.clusters.find((c) => c.onScreen && inside(point, c.onScreen));
    if (drawn) page.choose(page.itemOfDrawn(drawn));
    else if (cluster) page.choose(page.items.find((item) => item.view === this && item.cluster === cluster));
    else page.choose(null);
  }
}

function setAll(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, typeof value === "number" ? value.toFixed(2) : value);
}

function markOf(spot, x, y, r) {
  if (spot.kind === "macro") return brackets(x, y, r);
  if (spot.kind === "micro") return circle(x, y, r);
  return `M${x - 1.3 * r},${y}L${x},${y - 1.3 * r}L${x + 1.3 * r},${y}L${x},${y + 1.3 * r}Z`;
}

function circle(x, y, r) {
  return `M${x - r},${y}a${r},${r} 0 1 0 ${2 * r},0a${r},${r} 0 1 0 ${-2 * r},0`;
}

function brackets(x, y, r) {
  return [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([sx, sy]) =>
    `M${x + sx * r * 0.45},${y + sy * r}L${x + sx * r},${y + sy * r}L${x + sx * r},${y + sy * r * 0.45}`).join("");
}

// ----------------------------------------------------------------------------------------------------------- tools

// Ruler and missed cluster: by dragging, or by arrows, + and - and Enter.
const tool = {
  name: "",
  view: null,
  from: null, // (row, col)
  to: null,
  dragging: false,

  start(name) {
    const again = this.name === name;
    this.stop();
    if (again) return;
    const view = page.focused;
    if (!view?.ready) return;
    const { x, y } = view.osd.viewport.getContainerSize();
    const centre = view.toImage({ x: x / 2, y: y / 2 });
    const length = TOOL_MM / (view.mmPerPx || 0.1);
    const half = name === "draw" ? length / 2 : length;
    Object.assign(this, { name, view, from: centre, to: [centre[0], centre[1] + half * (view.data.turn[1] ? -1 : 1)] });
    this.show();
    page.tell(name === "draw" ? "Circle in the middle of the view: drag a new one, or arrows, plus, minus, then Enter"
      : `Ruler in the middle of the view: ${this.length()}`);
  },

  stop() {
    const { view } = this;
    Object.assign(this, { name: "", view: null, from: null, to: null, dragging: false });
    this.show(view);
  },

  show(view = this.view) {
    byId("ruler").setAttribute("aria-pressed", this.name === "ruler");
    byId("draw").setAttribute("aria-pressed", this.name === "draw");
    view?.mark();
  },

  length() {
    const { spacing_mm: mm } = this.view.data;
    const [dr, dc] = [this.to[0] - this.from[0], this.to[1] - this.from[1]];
    return mm ? `${Math.hypot(dr * mm[0], dc * mm[1]).toFixed(1)} mm` : `${Math.hypot(dr, dc).toFixed(0)} px, size unknown`;
  },

  radius() {
    return Math.hypot(this.to[0] - this.from[0], this.to[1] - this.from[1]);
  },

  mark(view, add) {
    if (this.view !== view || !this.from) return;
    const label = svg("text", { class: "ruler" });
    if (this.name === "draw") {
      add(([ring, text], frame) => {
        const [x, y] = view.toScreen(...this.from, frame);
        const r = this.radius() * frame.scale;
        setAll(ring, { cx: x, cy: y, r });
        setAll(text, { x: x + r + 5, y: y + 4 });
        text.textContent = view.mmPerPx ? `${(2 * this.radius() * view.mmPerPx).toFixed(1)} mm across` : "";
      }, svg("circle", { class: "mine chosen" }), label);
      return;
    }
    const [edge, line] = ["ruler edge", "ruler"].map((names) => svg("path", { class: names }));
    add(([under, over, text], frame) => {
      const [[x, y], [u, v]] = [view.toScreen(...this.from, frame), view.toScreen(...this.to, frame)];
      const far = Math.hypot(u - x, v - y) || 1;
      const [nx, ny] = [(-(v - y) / far) * 6, ((u - x) / far) * 6];
      const path = `M${x},${y}L${u},${v}M${x - nx},${y - ny}L${x + nx},${y + ny}M${u - nx},${v - ny}L${u + nx},${v + ny}`;
      under.setAttribute("d", path);
      over.setAttribute("d", path);
      setAll(text, { x: (x + u) / 2 + 8, y: (y + v) / 2 - 8 });
      text.textContent = this.length();
    }, edge, line, label);
  },

  press(view, event) {
    if (!this.name) return;
    event.preventDefaultAction = true;
    const before = this.view;
    Object.assign(this, { view, dragging: true, from: view.toImage(event.position), to: view.toImage(event.position) });
    if (before !== view) before.mark();
    view.mark();
  },

  drag(view, event) {
    if (!this.name) return;
    event.preventDefaultAction = true;
    if (!this.dragging) return;
    this.to = view.toImage(event.position);
    view.place();
  },

  release(view, event) {
    if (!this.name || !this.dragging) return;
    this.dragging = false;
    this.to = view.toImage(event.position);
    if (this.name === "draw") {
      if (this.radius() * view.frame().scale < 4) this.to = [this.from[0], this.from[1] + TOOL_MM / 2 / (view.mmPerPx || 0.1)];
      this.keep();
    } else {
      view.place();
      page.tell(this.length());
    }
  },

  key(event) {
    const step = (event.shiftKey ? 10 : 1) / this.view.frame().scale;
    const { turn } = this.view.data;
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    if (event.key === "Enter" && this.name === "draw") this.keep();
    else if (event.key === "Escape") this.stop();
    else if (event.key === "Tab" && this.name === "ruler") [this.from, this.to] = [this.to, this.from];
    else if (["+", "=", "-"].includes(event.key) && this.name === "draw") {
      const grow = event.key === "-" ? 1 / 1.15 : 1.15;
      this.to = this.to.map((v, i) => this.from[i] + (v - this.from[i]) * grow);
    } else if (event.key in moves) {
      const [row, col] = moves[event.key];
      const shift = [row * step * 4 * (turn[0] ? -1 : 1), col * step * 4 * (turn[1] ? -1 : 1)];
      this.to = this.to.map((v, i) => v + shift[i]);
      if (this.name === "draw") this.from = this.from.map((v, i) => v + shift[i]);
    } else return false;
    this.view?.place();
    if (this.name === "ruler") page.tell(this.length());
    return true;
  },

  async keep() {
    if (needsReviewer()) return;
    const { view, from } = this;
    const radius = this.radius();
    this.stop();
    const fields = {
      target: "missed", cluster_id: `m${hex(4)}`, image_id: view.data.image_id, decision: "added", blind: page.hiding,
      row_px: from[0].toFixed(1), col_px: from[1].toFixed(1), radius_px: radius.toFixed(1),
    };
    const saved = decisions.add(fields);
    const drawn = page.drawn(view).find((row) => row.cluster_id === fields.cluster_id);
    if (drawn) page.choose(page.itemOfDrawn(drawn));
    page.tell("Missed cluster added");
    await saved;
  },
};

// ------------------------------------------------------------------------------------------------------------ page

const page = {
  views: [],
  layouts: [], // { words, rows: [[View|null, View|null], ...] }
  layout: 0,
  focused: null,
  chosen: null, // an item
  linked: true,
  following: false,
  fitted: true,
  whole: false, // whether the whole picture is fitted, and not the breast
  zoomedTo: null,
  blind: false,
  pulse: false,
  items: [], // clusters in the order of their rank: { view, cluster, subject }

  get blinded() { // before the reader's own opinion
    return this.blind && !decisions.standing(subject({ target: "case", case_id: CASE.case_id, blind: "true" }))?.decision;
  },

  get hiding() {
    return this.blinded || decisions.opening;
  },

  start() {
    this.views = CASE.views.map((data, i) => new View(data, i));
    this.items = this.views.flatMap((view) => view.data.clusters.map((cluster) => ({
      view, cluster, subject: subject({
        target: "cluster", image_id: view.data.image_id, cluster_id: String(cluster.id),
        row_px: cluster.place[0], col_px: cluster.place[1],
      }),
    })));
    const rank = ({ cluster }) => (cluster.review ? 0 : 3) + ["high", "medium", "low"].indexOf(cluster.level);
    this.items.sort((a, b) => rank(a) - rank(b));
    this.makeLayouts();
    decisions.opening = location.protocol.startsWith("http");
    this.blind = location.hash === "#blind" || kept.read("blind", false);
    this.setLayout(0);
    this.update();
  },

  makeLayouts() {
    const rows = CASE.hang.map((row) => row.map((i) => (i === null ? null : this.views[i])));
    const sheets = [];
    for (let i = 0; i < rows.length; i += 2) sheets.push(rows.slice(i, i + 2));
    const name = (row) => (row.find(Boolean).data.view || "?") + (row.find(Boolean).data.modifiers.length ? "+" : "");
    const all = sheets.map((sheet, i) => ({ words: sheets.length > 1 ? `All ${i + 1}` : "All", rows: sheet }));
    const pairs = rows.length > 1 ? rows.map((row) => ({ words: name(row), rows: [row] })) : [];
    const sides = [0, 1].map((s) => rows.map((row) => row[s]).filter(Boolean));
    const breasts = sides.every((list) => list.length > 1)
      ? sides.map((list, s) => ({ words: s ? "Left" : "Right", rows: [list.slice(0, 2)] })) : [];
    this.layouts = [...all, ...pairs, ...breasts].slice(0, 9);
    byId("layouts").replaceChildren(...this.layouts.map(({ words }, i) =>
      element("button", { type: "button", title: `Key ${i + 1}`, onclick: () => this.setLayout(i) }, words)));
  },

  setLayout(index, alone = null) {
    const rows = alone ? [[alone]] : this.layouts[index].rows;
    Object.assign(this, { layout: index, alone, fitted: true, zoomedTo: null });
    const there = rows.flat().filter(Boolean);
    const both = rows.some((row) => row.filter(Boolean).length > 1);
    const mixed = new Set(there.map((view) => view.data.side)).size > 1;
    for (const view of this.views) {
      if (there.includes(view)) continue;
      view.close();
      view.element.remove();
    }
    rows.forEach((row, r) => row.forEach((view, c) => {
      if (!view) return;
      view.element.style.setProperty("--row", r + 1);
      view.element.style.setProperty("--col", both || mixed ? c + 1 : 1);
      byId("views").append(view.element);
    }));
    for (const view of there) { // now that each has its place
      view.open();
      view.mark();
    }
    [...byId("layouts").children].forEach((button, i) => button.setAttribute("aria-pressed", !alone && i === index));
    this.shown = there;
    if (!there.includes(this.focused)) this.focused = there[0];
    this.fit();
  },

  focus(view) {
    this.focused = view;
  },

  // ---------------------------------------------------------------------------------------------- zoom

  fit() {
    const ready = (this.shown || []).filter((view) => view.ready);
    if (!ready.length || this.following) return;
    this.following = true;
    const known = ready.filter((view) => view.mmPerPx);
    const common = Math.min(...known.map((view) => view.fittingScale()));
    for (const view of ready) view.fit((view.mmPerPx ? common : view.fittingScale()) * (view.mmPerPx || 1));
    this.following = false;
    Object.assign(this, { fitted: true, zoomedTo: null });
  },

  refit() {
    if (this.fitted) this.fit();
  },

  // To the breast; if it is that already, to the whole picture.
  fitOrWhole() {
    this.whole = this.fitted && !this.whole;
    this.fit();
  },

  // The other views follow, about the same place of theirs: of the other breast, mirrored.
  zoomed(view, position) {
    this.fitted = false;
    if (!this.linked) return;
    const { x: wide, y: high } = view.osd.viewport.getContainerSize();
    this.following = true;
    for (const other of this.shown) {
      if (other === view || !other.ready || Boolean(other.mmPerPx) !== Boolean(view.mmPerPx)) continue;
      const across = other.data.side === view.data.side ? position.x / wide : 1 - position.x / wide;
      other.setScale(view.scaleWanted(), [across, position.y / high]);
    }
    this.following = false;
  },

  opened(view) {
    if (this.waiting?.view === view) {
      this.waiting = null;
      this.zoomTo(this.chosen);
    }
  },

  // The view to what is chosen, the others as they are.
  zoomTo(item) {
    if (!item) return;
    if (this.zoomedTo === item) {
      this.fit();
      return;
    }
    const { view } = item;
    if (!view.ready) {
      this.waiting = item;
      return;
    }
    const { x: wide, y: high } = view.osd.viewport.getContainerSize();
    const unit = view.mmPerPx || 1;
    const [row, col, across] = this.extentOf(item);
    this.following = true;
    const perUnit = Math.min(wide, high) / Math.max(across * unit * 2.2, view.mmPerPx ? 20 : 300);
    view.goTo(row, col, Math.min(perUnit, MOST_ENLARGED / unit));
    this.following = false;
    Object.assign(this, { zoomedTo: item, fitted: false });
  },

  extentOf(item) { // row, col and size in px
    if (item.drawn) return [Number(item.drawn.row_px), Number(item.drawn.col_px), 2 * Number(item.drawn.radius_px)];
    const rows = item.cluster.outline.map(([r]) => r);
    const cols = item.cluster.outline.map(([, c]) => c);
    if (!rows.length) return [item.cluster.row, item.cluster.col, 1];
    const [top, bottom, left, right] = [Math.min(...rows), Math.max(...rows), Math.min(...cols), Math.max(...cols)];
    return [(top + bottom) / 2, (left + right) / 2, Math.max(bottom - top, right - left)];
  },

  // ---------------------------------------------------------------------------------------------- choice

  isChosen(view, cluster) {
    return this.chosen?.view === view && this.chosen.cluster === cluster;
  },

  choose(item) {
    const before = this.chosen;
    this.chosen = item || null;
    if (item && !this.shown.includes(item.view)) this.setLayout(this.layouts.findIndex(({ rows }) => rows.flat().includes(item.view)));
    if (item) this.focused = item.view;
    this.pulse = true;
    for (const view of new Set([before?.view, item?.view])) view?.mark();
    this.pulse = false;
    this.showPanel();
    if (item) this.tell(this.describe(item));
  },

  describe(item) {
    if (item.drawn) return `Missed cluster drawn on ${nameOf(item.view.data)}`;
    const { cluster } = item;
    return `Cluster ${cluster.id} on ${nameOf(item.view.data)}, ${cluster.review ? "for review, " : ""}rank ${cluster.level}. `
      + cluster.reasons.join(". ");
  },

  step(by, flaggedAlone) {
    const list = this.hiding ? [] : this.items.filter(({ cluster }) => cluster.review || !flaggedAlone);
    if (!list.length) {
      this.tell(this.hiding ? "Findings are hidden until you have given your own opinion" : "No cluster is flagged for review");
      return;
    }
    const now = list.indexOf(this.chosen);
    const zoomed = this.zoomedTo !== null;
    this.choose(list[now < 0 ? (by > 0 ? 0 : list.length - 1) : (now + by + list.length) % list.length]);
    if (zoomed) this.zoomTo(this.chosen);
  },

  // What readers have drawn on a view and not withdrawn; of others once one's own opinion of the case is there.
  drawn(view) {
    const latest = new Map();
    for (const row of decisions.rows) {
      if (row.target === "missed" && row.image_id === view.data.image_id) latest.set(`${row.reviewer}|${subject(row)}`, row);
    }
    const open = !this.hiding && ["true", "false"].some((blind) =>
      decisions.standing(subject({ target: "case", case_id: CASE.case_id, blind }))?.decision);
    return [...latest.values()].filter((row) => row.decision === "added" && (row.reviewer === decisions.reviewer || open));
  },

  itemOfDrawn(drawn) {
    const view = this.views.find(({ data }) => data.image_id === drawn.image_id);
    return { view, drawn, subject: subject(drawn) };
  },

  // --------------------------------------------------------------------------------------------- decide

  // What A, R and U are about: what is chosen, or else the case.
  aim() {
    if (this.chosen?.cluster && !this.hiding) {
      const { view, cluster } = this.chosen;
      return { target: "cluster", image_id: view.data.image_id, cluster_id: String(cluster.id), row_px: cluster.place[0], col_px: cluster.place[1] };
    }
    if (this.chosen?.drawn) {
      const { image_id, cluster_id, row_px, col_px, radius_px, blind } = this.chosen.drawn;
      return { target: "missed", image_id, cluster_id, row_px, col_px, radius_px, blind: blind === "true" };
    }
    return { target: "case", blind: this.hiding };
  },

  aimed() {
    const aim = this.aim();
    return subject({ ...aim, case_id: CASE.case_id, blind: String(Boolean(aim.blind)) });
  },

  async decide(which) { // 0 accept or yes, 1 reject or no, 2 unsure
    if (this.chosen?.drawn || needsReviewer()) return;
    const aim = this.aim();
    const decision = WORDS[aim.target][which];
    const comment = byId("comment")?.value ?? "";
    const saved = decisions.add({ ...aim, decision, comment });
    this.tell(`${aim.target === "case" ? "Case" : `Cluster ${aim.cluster_id}`}: ${decision}`);
    await saved;
  },

  async comment() {
    const box = byId("comment");
    const before = decisions.standing(this.aimed());
    if (!box || box.value === (before?.comment || "") || needsReviewer()) return;
    await decisions.add({ ...this.aim(), decision: before?.decision || (this.chosen?.drawn ? "added" : ""), comment: box.value });
  },

  async withdraw() {
    if (!this.chosen?.drawn || this.chosen.drawn.reviewer !== decisions.reviewer) return;
    const { view } = this.chosen;
    const saved = decisions.add({ ...this.aim(), decision: "withdrawn" });
    this.chosen = null;
    this.showPanel();
    view.mark();
    await saved;
  },

  // ---------------------------------------------------------------------------------------------- panel

  // After decisions have changed, here or elsewhere.
  update() {
    if (decisions.session?.blind) this.blind = true;
    if (this.hiding && this.chosen?.cluster) this.chosen = null;
    if (this.chosen?.drawn && !this.drawn(this.chosen.view).some((row) => subject(row) === this.chosen.subject)) this.chosen = null;
    document.body.classList.toggle("hiding", this.hiding);
    byId("blind").setAttribute("aria-pressed", this.blind);
    for (const view of this.shown) view.mark();
    this.showPanel();
  },

  showPanel() {
    const box = byId("comment");
    const typed = box && document.activeElement === box && box.dataset.subject === this.aimed() ? box.value : null;
    const top = byId("panel").scrollTop;
    byId("panel").replaceChildren(...(this.hiding ? [this.question(true)] : [this.list(), ...(this.chosen ? [] : [this.question(false)])]),
      ...(this.chosen ? [this.detail()] : []), this.caseFacts());
    byId("panel").scrollTop = top;
    if (typed !== null) {
      byId("comment").value = typed;
      byId("comment").focus();
    }
    if (this.chosen && this.chosen.view.url) this.drawCrop();
  },

  list() {
    const flagged = this.items.filter(({ cluster }) => cluster.review);
    const done = flagged.filter((item) => decisions.standing(item.subject)?.decision).length;
    const words = flagged.length ? `${flagged.length} for review, ${done} decided` : "No cluster flagged. This does not mean normal.";
    const entries = this.items.map((item) => this.entry(item, item.cluster.review ? "review" : "other",
      `${item.cluster.id}`, `${nameOf(item.view.data)}, ${item.cluster.level}${item.cluster.review ? ", review" : ""}`));
    const mine = this.views.flatMap((view) => this.drawn(view)).map((row) => {
      const item = this.itemOfDrawn(row);
      return this.entry(item, "mine", "+", `${nameOf(item.view.data)}, drawn by ${row.reviewer === decisions.reviewer ? "me" : row.reviewer}`);
    });
    const step = (by, words, key) => element("button", { type: "button", title: `Key ${key}`, onclick: () => this.step(by, true), disabled: !flagged.length }, words);
    return element("section", {},
      element("div", { class: "progress" }, element("span", {}, words), step(-1, "‹ Prev", "P"), step(1, "Next ›", "N")),
      element("ul", { class: "list" }, ...[...entries, ...mine].map((entry) => element("li", {}, entry))));
  },

  entry(item, kind, number, words) {
    const standing = decisions.standing(item.subject);
    return element("button", {
      type: "button", class: kind, "aria-current": this.chosen?.subject === item.subject ? "true" : null, onclick: () => this.choose(item),
    }, element("b", {}, number), element("span", {}, words),
    element("span", { class: "done" }, item.drawn ? "" : standing?.decision ? { accept: "accepted ✓", reject: "rejected ✕", unsure: "unsure ?" }[standing.decision] : ""));
  },

  question(blind) {
    const words = blind ? "Your own opinion first: are there calcifications here that need a closer look?"
      : "The whole case: are there calcifications that need a closer look?";
    return element("section", {},
      blind ? element("p", { class: "history" }, "Blind mode: findings appear when you have answered. You may draw what you see (D).") : null,
      this.chosen ? null : element("p", { class: "question", id: "question" }, words),
      ...(this.chosen ? [] : this.buttons(["Yes", "No", "Unsure"])));
  },

  buttons(words) {
    const wanted = this.aimed();
    const standing = decisions.standing(wanted);
    const others = decisions.others(wanted);
    const aim = this.aim();
    const marks = ["yes", "no", "maybe"];
    const button = (word, i) => element("button", {
      type: "button", class: marks[i], "aria-pressed": String(standing?.decision === WORDS[aim.target][i]), onclick: () => this.decide(i),
    }, word, " ", element("kbd", {}, "ARU"[i]));
    const comment = element("textarea", { id: "comment", "aria-label": "Comment", placeholder: "Comment (C)", maxlength: 2000, "data-subject": wanted });
    comment.value = standing?.comment || "";
    comment.addEventListener("change", () => this.comment());
    const when = (row) => new Date(row.time).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
    const blindly = ["true"].map((b) => decisions.standing(subject({ target: "case", case_id: CASE.case_id, blind: b })))
      .find((row) => row?.decision && !this.hiding && aim.target === "case");
    return [
      words.length ? element("div", { class: "decide", role: "group", "aria-label": "Decision" }, ...words.map(button)) : null,
      comment,
      standing ? element("p", { class: "history" }, `${standing.decision || "comment"}, ${when(standing)}`
        + (standing.n > 1 ? `; ${standing.n} entries kept` : "")) : null,
      blindly ? element("p", { class: "history" }, `Blind, before findings were shown: ${blindly.decision}, ${when(blindly)}`) : null,
      ...others.map((row) => element("p", { class: "history" }, `${row.reviewer}: ${row.decision}${row.comment ? ` (${row.comment})` : ""}`)),
    ].filter(Boolean);
  },

  detail() {
    const { view, cluster, drawn } = this.chosen;
    const crop = view.url ? element("div", { class: "crop" }, element("canvas", { id: "crop", role: "img", "aria-label": "Cluster magnified" })) : null;
    if (drawn) {
      const mm = view.mmPerPx ? `${(2 * Number(drawn.radius_px) * view.mmPerPx).toFixed(1)} mm across` : "size unknown";
      const own = drawn.reviewer === decisions.reviewer;
      return element("section", { class: "detail" }, element("h2", {}, `Missed cluster on ${nameOf(view.data)}`), crop,
        element("div", { class: "beside" },
          element("p", { class: "history" }, `${mm}; drawn by ${drawn.reviewer}${drawn.blind === "true" ? ", blind" : ""}`),
          ...(own ? this.buttons([]) : []),
          own ? element("button", { type: "button", onclick: () => this.withdraw() }, "Withdraw ", element("kbd", {}, "Delete")) : null));
    }
    const facts = [
      ["Spots", `${cluster.n_spots}${cluster.n_irregular ? `, ${cluster.n_irregular} irregular` : ""}${cluster.n_macro ? `, ${cluster.n_macro} macro` : ""}`],
      ["Extent", rounded(cluster.extent_mm, "mm")], ["Area", rounded(cluster.area_mm2, "mm²", 0)],
      ["Density", rounded(cluster.density_per_cm2, "per cm²", 0)], ["To neighbour", rounded(cluster.nearest_mm, "mm")],
      ["Distribution", cluster.distribution], ["Form", cluster.morphology],
    ];
    return element("section", { class: "detail" },
      element("h2", {}, `Cluster ${cluster.id} on ${nameOf(view.data)}: ${cluster.review ? "review, " : ""}${cluster.level}`),
      crop,
      element("div", { class: "beside" },
        ...this.buttons(["Accept", "Reject", "Unsure"]),
        element("ul", { class: "reasons" }, ...cluster.reasons.map((reason) => element("li", {}, reason))),
        cluster.suggestion ? element("p", { class: "suggestion" }, `Suggested: ${cluster.suggestion}`) : null,
        element("dl", {}, ...facts.filter(([, value]) => value).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])),
        this.spotTable(view, cluster)));
  },

  spotTable(view, cluster) {
    const spots = view.data.spots.filter((spot) => spot.cluster === cluster.id);
    const size = (spot) => (spot.length_mm === null ? "unknown" : `${spot.length_mm.toFixed(2)} × ${spot.width_mm.toFixed(2)}`);
    const rows = spots.map((spot) => element("tr", {}, ...[spot.id, spot.kind, [spot.shape, spot.form].filter(Boolean).join(", "), size(spot)]
      .map((value) => element("td", {}, String(value)))));
    const open = this.spotsOpen;
    const table = element("details", { class: "spots", open }, element("summary", {}, `Its ${counted(spots.length, "spot")}`),
      element("table", {}, element("thead", {}, element("tr", {}, ...["No.", "Kind", "Shape", "Size in mm"].map((word) => element("th", { scope: "col" }, word)))),
        element("tbody", {}, ...rows)));
    table.addEventListener("toggle", () => { this.spotsOpen = table.open; });
    return table;
  },

  caseFacts() {
    const rows = CASE.hang.flat().filter((i) => i !== null).map((i) => this.views[i].data).flatMap((data) => {
      const unknown = data.n_unknown ? `, ${data.n_unknown} of unknown size` : "";
      const counts = this.hiding ? [] : [`${data.n_micro} micro, ${data.n_macro} macro${unknown}`,
        data.not_drawn && `of these not drawn: ${data.not_drawn}, single and doubtful`];
      const words = [...counts, ...data.limits, ...data.warnings, data.excluded].filter(Boolean).join("; ");
      return [element("dt", {}, nameOf(data)), element("dd", {}, words, element("small", { class: "file" }, [data.path, data.device].filter(Boolean).join(", ")))];
    });
    const images = element("details", { open: this.factsOpen ?? true }, element("summary", {}, "Images"), element("dl", {}, ...rows));
    images.addEventListener("toggle", () => { this.factsOpen = images.open; });
    return element("section", { class: "facts" }, images);
  },

  async drawCrop() {
    const { chosen } = this;
    const { view } = chosen;
    const { image } = view;
    await image.decode().catch(() => null);
    const canvas = byId("crop");
    if (chosen !== this.chosen || !canvas || !image.naturalWidth) return;
    const wide = Math.max(200, canvas.clientWidth || 320);
    const portrait = matchMedia("(orientation: portrait)").matches;
    const high = Math.round(Math.min(wide * 0.72, portrait ? byId("panel").clientHeight - 80 : Infinity));
    const dots = devicePixelRatio || 1;
    Object.assign(canvas, { width: wide * dots, height: high * dots });
    canvas.style.height = `${high}px`;
    const [row, col, across] = this.extentOf(chosen);
    const scale = Math.min(wide / Math.max(across * 1.15, CROP_MM / (view.mmPerPx || 0.08)), high / (across * 1.15 || 1));
    const field = wide / scale; // image px across the crop
    const [cx, cy] = view.mirrored(row, col);
    const perPicture = image.naturalWidth / view.data.cols;
    const pen = canvas.getContext("2d");
    pen.scale(dots, dots);
    pen.filter = this.filter();
    pen.imageSmoothingQuality = "high";
    const [sw, sh] = [field * perPicture, (high / scale) * perPicture];
    pen.drawImage(image, cx * perPicture - sw / 2, cy * perPicture - sh / 2, sw, sh, 0, 0, wide, high);
    pen.filter = "none";
    const place = (r, c) => {
      const [x, y] = view.mirrored(r, c);
      return [(x - cx) * scale + wide / 2, (y - cy) * scale + high / 2];
    };
    if (!document.body.classList.contains("no-marks") && !this.hiding) this.drawCropMarks(pen, view, place, scale);
    this.drawCropScale(pen, view, wide, high, scale);
    canvas.dataset.scale = scale;
  },

  drawCropMarks(pen, view, place, scale) {
    const style = getComputedStyle(document.documentElement);
    const off = (kind) => document.body.classList.contains(`no-${kind}`);
    const rem = parseFloat(style.fontSize) / 13;
    for (const spot of view.data.spots) {
      if (off(spot.kind)) continue;
      const [x, y] = place(spot.row, spot.col);
      const r = Math.max(spot.reach * scale + 4, 5);
      for (const [colour, width, out] of [["#000c", 2.6 * rem, 1], [style.getPropertyValue(`--${spot.kind}`), 1.6 * rem, 0]]) {
        Object.assign(pen, { strokeStyle: colour, lineWidth: width });
        pen.stroke(new Path2D(markOf(spot, x, y, r + out)));
      }
    }
  },

  drawCropScale(pen, view, wide, high, scale) {
    if (!view.mmPerPx) return;
    const mm = [10, 5, 2, 1].find((length) => (length / view.mmPerPx) * scale < wide / 3) ?? 1;
    const length = (mm / view.mmPerPx) * scale;
    const px = Math.round(parseFloat(getComputedStyle(document.documentElement).fontSize));
    Object.assign(pen, { fillStyle: "#fff", font: `${px}px system-ui, sans-serif` });
    for (const [colour, width] of [["#000", 4], ["#fff", 2]]) {
      Object.assign(pen, { strokeStyle: colour, lineWidth: width });
      pen.beginPath();
      pen.moveTo(8, high - 8);
      pen.lineTo(8 + length, high - 8);
      pen.stroke();
    }
    const words = `${mm} mm, ${scale.toFixed(1)}×`;
    Object.assign(pen, { strokeStyle: "#000", lineWidth: 3 });
    pen.strokeText(words, 8, high - 14);
    pen.fillText(words, 8, high - 14);
  },

  // ------------------------------------------------------------------------------------------ grey, marks, rest

  filter() {
    const [brightness, contrast] = ["brightness", "contrast"].map((name) => Number(byId(name).value) / 100);
    const invert = byId("invert").getAttribute("aria-pressed") === "true";
    return `brightness(${brightness}) contrast(${contrast}) invert(${invert ? 1 : 0})`;
  },

  grey() {
    for (const view of this.views) view.grey();
    if (this.chosen?.view.url) this.drawCrop();
  },

  greyReset() {
    for (const name of ["brightness", "contrast"]) byId(name).value = 100;
    byId("invert").setAttribute("aria-pressed", "false");
    this.grey();
  },

  toggle(id) {
    const pressed = byId(id).getAttribute("aria-pressed") !== "true";
    byId(id).setAttribute("aria-pressed", pressed);
    return pressed;
  },

  setMarks(kind, on) {
    const boxes = [...document.querySelectorAll("[data-marks]")];
    const box = boxes.find((b) => b.dataset.marks === kind);
    box.checked = on;
    document.body.classList.toggle(kind === "all" ? "no-marks" : `no-${kind}`, !on);
    const all = boxes.find((b) => b.dataset.marks === "all").checked;
    const some = KINDS.some((name) => !boxes.find((b) => b.dataset.marks === name).checked);
    byId("marks-state").textContent = !all ? "off" : some ? "some" : "on";
    if (this.chosen?.view.url) this.drawCrop();
  },

  setBlind(on) {
    if (decisions.session?.blind) on = true;
    this.blind = on;
    kept.write("blind", on);
    this.update();
    this.tell(this.hiding ? "Findings are hidden until you have given your own opinion" : "Findings are shown");
  },

  goCase(by) {
    const order = kept.read("order", []);
    const now = order.indexOf(CASE.stem);
    const next = order[now + by];
    if (now >= 0 && next) location.href = `${next}.html${this.blind ? "#blind" : ""}`;
  },

  showNeighbours() {
    const order = kept.read("order", []);
    const now = order.indexOf(CASE.stem);
    byId("previous-case").hidden = now < 1;
    byId("next-case").hidden = now < 0 || now >= order.length - 1;
  },

  async showPatient() {
    if (!decisions.session?.identity) return;
    const { patients } = await decisions.ask(`/api/identity?${new URLSearchParams({ case_id: CASE.case_id })}`).catch(() => ({ patients: [] }));
    byId("patient").textContent = patients.map((p) => [p.name, p.id, p.birth_date && `born ${p.birth_date}`].filter(Boolean).join(", ")).join(" / ");
  },

  tell(words) {
    byId("told").textContent = words;
  },

  key(event) {
    if (byId("keys").open || typing(event)) {
      if (event.target.id === "comment" && (event.key === "Escape" || (event.key === "Enter" && event.ctrlKey))) {
        event.target.blur();
        event.preventDefault();
      }
      return;
    }
    const onButton = event.target.closest("button, a, summary, input");
    if (tool.name && !onButton && tool.key(event)) {
      event.preventDefault();
      return;
    }
    const act = this.keys()[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act || (onButton && event.key.startsWith("Arrow"))) return;
    event.preventDefault();
    act(event);
  },

  keys() {
    const viewport = this.focused?.ready ? this.focused.osd.viewport : null;
    const pan = (x, y) => () => {
      if (!viewport) return;
      this.fitted = false;
      viewport.panBy(viewport.deltaPointsFromPixels(new OpenSeadragon.Point(60 * x, 60 * y)));
    };
    const zoom = (by) => () => viewport && this.focused.zoomBy(by);
    const layouts = Object.fromEntries(this.layouts.map((_, i) => [String(i + 1), () => this.setLayout(i)]));
    return {
      ...layouts,
      n: () => this.step(1, true), p: () => this.step(-1, true), j: () => this.step(1, false), k: () => this.step(-1, false),
      a: () => this.decide(0), r: () => this.decide(1), u: () => this.decide(2),
      c: () => byId("comment")?.focus(), z: () => this.zoomTo(this.chosen),
      m: () => this.setMarks("all", document.body.classList.contains("no-marks")),
      d: () => tool.start("draw"), g: () => tool.start("ruler"), Delete: () => this.withdraw(), Backspace: () => this.withdraw(),
      l: () => byId("link").click(), i: () => byId("invert").click(), o: () => this.greyReset(), b: () => this.setBlind(!this.blind),
      f: () => this.setLayout(this.layout, this.alone ? null : this.focused),
      v: () => this.shown[(this.shown.indexOf(this.focused) + 1) % this.shown.length].element.focus(),
      w: () => byId("worklist").click(), "[": () => this.goCase(-1), "]": () => this.goCase(1),
      "?": () => byId("keys").showModal(), 0: () => this.fitOrWhole(), Home: () => this.fitOrWhole(),
      Escape: () => (byId("kinds").open ? (byId("kinds").open = false) : this.choose(null)),
      "+": zoom(1.4), "=": zoom(1.4), "-": zoom(1 / 1.4),
      ArrowLeft: pan(-1, 0), ArrowRight: pan(1, 0), ArrowUp: pan(0, -1), ArrowDown: pan(0, 1),
    };
  },
};

function wire() {
  addEventListener("keydown", (event) => page.key(event));
  byId("fit").addEventListener("click", () => page.fitOrWhole());
  byId("link").addEventListener("click", () => { page.linked = page.toggle("link"); });
  byId("ruler").addEventListener("click", () => tool.start("ruler"));
  byId("draw").addEventListener("click", () => tool.start("draw"));
  byId("brightness").addEventListener("input", () => page.grey());
  byId("contrast").addEventListener("input", () => page.grey());
  byId("invert").addEventListener("click", () => { page.toggle("invert"); page.grey(); });
  byId("grey-reset").addEventListener("click", () => page.greyReset());
  byId("blind").addEventListener("click", () => page.setBlind(!page.blind));
  byId("help").addEventListener("click", () => byId("keys").showModal());
  byId("previous-case").addEventListener("click", () => page.goCase(-1));
  byId("next-case").addEventListener("click", () => page.goCase(1));
  for (const box of document.querySelectorAll("[data-marks]")) {
    box.addEventListener("change", () => page.setMarks(box.dataset.marks, box.checked));
  }
  addEventListener("resize", () => page.chosen?.view.url && page.drawCrop());
}

page.start();
wire();
page.showNeighbours();
decisions.listeners.push(() => page.update());
decisions.open(CASE.case_id).then(() => page.showPatient());
