// The micrograph on its canvas: tiles of the level that suits the zoom, panned and zoomed.

const MOST_TILES = 800;
const MOST_ZOOM = 16; // screen px of a px of the micrograph

export class Viewer {
  /** drawn(): called after each frame, to draw what lies over the image. */
  constructor(canvas, drawn) {
    this.canvas = canvas;
    this.front = canvas.getContext('2d', { alpha: false });
    // Filtered once for each view; as a style of the canvas it would be with every circle's frame
    this.back = document.createElement('canvas');
    this.context = this.back.getContext('2d', { alpha: false });
    this.canFilter = 'filter' in this.front;
    this.drawn = drawn;
    this.whenSharp = null; // called once when no tile of the view is missing any more
    this.tiles = new Map(); // address -> image, those used last at the end
    this.micrograph = null;
    this.scale = 1; // css px of a px of the micrograph
    this.top = 0; // of the view, in px of the micrograph
    this.left = 0;
    this.filter = { contrast: 1, brightness: 1, smooth: 0, invert: false };
    new ResizeObserver(() => this.resize()).observe(canvas);
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const wasFitted = this.isFitted;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.ratio = ratio;
    if (this.micrograph && wasFitted) this.fit();
    this.redraw();
  }

  open(micrograph, tilePx) {
    this.micrograph = micrograph;
    this.tilePx = tilePx;
    if (micrograph) this.fit();
    this.redraw();
  }

  get fitScale() {
    const [height, width] = this.micrograph.size_px;
    return Math.min(this.canvas.clientHeight / height, this.canvas.clientWidth / width);
  }

  fit() {
    const [height, width] = this.micrograph.size_px;
    this.scale = this.fitScale;
    this.top = (height - this.canvas.clientHeight / this.scale) / 2;
    this.left = (width - this.canvas.clientWidth / this.scale) / 2;
    this.isFitted = true;
    this.redraw();
  }

  /** Zoom by a factor so that what is at (x, y) css px of the canvas stays there. */
  zoom(factor, x, y) {
    if (!this.micrograph) return;
    const before = this.toMicrograph(x, y);
    const least = 0.5 * this.fitScale;
    this.scale = Math.min(MOST_ZOOM, Math.max(least, this.scale * factor));
    this.top = before.y - y / this.scale;
    this.left = before.x - x / this.scale;
    this.isFitted = false;
    this.keepInView();
  }

  pan(dx, dy) {
    this.left -= dx / this.scale;
    this.top -= dy / this.scale;
    this.isFitted = false;
    this.keepInView();
  }

  /** Bring a place of the micrograph into the middle, if it is not seen. */
  show({ y, x }) {
    const { x: sx, y: sy } = this.toScreen({ y, x });
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (sx > 0 && sy > 0 && sx < width && sy < height) return;
    this.left = x - width / 2 / this.scale;
    this.top = y - height / 2 / this.scale;
    this.keepInView();
  }

  keepInView() {
    const [height, width] = this.micrograph.size_px;
    const seenX = this.canvas.clientWidth / this.scale;
    const seenY = this.canvas.clientHeight / this.scale;
    this.left = Math.min(width - 0.2 * seenX, Math.max(-0.8 * seenX, this.left));
    this.top = Math.min(height - 0.2 * seenY, Math.max(-0.8 * seenY, this.top));
    this.redraw();
  }

  toMicrograph(x, y) {
    return { y: this.top + y / this.scale, x: this.left + x / this.scale };
  }

  toScreen({ y, x }) {
    return { x: (x - this.left) * this.scale, y: (y - this.top) * this.scale };
  }

  setFilter(filter) {
    this.filter = filter;
    this.redraw();
  }

  /** Draw anew with the next frame: the micrograph too, or only what lies over it. */
  redraw(isImageToo = true) {
    this.isStale ||= isImageToo;
    if (this.isWaiting) return;
    this.isWaiting = true;
    requestAnimationFrame(() => {
      this.isWaiting = false;
      if (this.isStale) this.draw();
      this.isStale = false;
      this.drawn();
    });
  }

  draw() {
    const { back, canvas, front } = this;
    if (back.width !== canvas.width || back.height !== canvas.height) {
      [back.width, back.height] = [canvas.width, canvas.height];
    }
    this.drawTiles();
    const css = this.filterAsCss(this.canFilter ? this.ratio : 1);
    if (this.canFilter) front.filter = css;
    else canvas.style.filter = css;
    front.drawImage(back, 0, 0);
    if (this.isSharp && this.whenSharp) {
      this.whenSharp();
      this.whenSharp = null;
    }
  }

  filterAsCss(ratio) {
    const { contrast, brightness, smooth, invert } = this.filter;
    const parts = [];
    if (contrast !== 1) parts.push(`contrast(${contrast})`);
    if (brightness !== 1) parts.push(`brightness(${brightness})`);
    if (invert) parts.push('invert(1)');
    const blur = smooth * this.scale * ratio;
    if (blur >= 0.3) parts.push(`blur(${blur.toFixed(2)}px)`);
    return parts.join(' ') || 'none';
  }

  drawTiles() {
    const { context, canvas } = this;
    context.fillStyle = this.filter.invert ? '#fff' : '#000';
    context.fillRect(0, 0, canvas.width, canvas.height);
    this.isSharp = false;
    if (!this.micrograph) return;
    const scale = this.scale * this.ratio;
    const finest = Math.floor(Math.log2(1 / scale) + 0.25);
    const level = Math.max(0, Math.min(this.micrograph.n_levels - 1, finest));
    context.imageSmoothingEnabled = scale < 4;
    const [height, width] = this.micrograph.size_px;
    const side = this.tilePx * 2 ** level; // of a tile, in px of the micrograph
    const first = (start) => Math.max(0, Math.floor(start / side));
    const bottom = Math.min(height, this.top + canvas.height / scale);
    const right = Math.min(width, this.left + canvas.width / scale);
    this.isSharp = true;
    for (let row = first(this.top); row * side < bottom; row += 1) {
      for (let column = first(this.left); column * side < right; column += 1) {
        this.drawTile(level, row, column, scale, [height, width]);
      }
    }
  }

  /** Draw a tile, or while it is on its way the part of a coarser one that is there. */
  drawTile(level, row, column, scale, [height, width]) {
    const side = this.tilePx * 2 ** level;
    const top = row * side;
    const left = column * side;
    const bottom = Math.min(top + side, height);
    const right = Math.min(left + side, width);
    // Whole px of the screen, so that no line shows between tiles
    const x0 = Math.round((left - this.left) * scale);
    const y0 = Math.round((top - this.top) * scale);
    const x1 = Math.round((right - this.left) * scale);
    const y1 = Math.round((bottom - this.top) * scale);
    for (let up = 0; level + up < this.micrograph.n_levels; up += 1) {
      const image = this.tile(level + up, row >> up, column >> up, up === 0);
      if (!image) {
        this.isSharp = false;
        continue;
      }
      const unit = 2 ** (level + up);
      const tileTop = (row >> up) * this.tilePx * unit;
      const tileLeft = (column >> up) * this.tilePx * unit;
      this.context.drawImage(
        image, (left - tileLeft) / unit, (top - tileTop) / unit,
        (right - left) / unit, (bottom - top) / unit, x0, y0, x1 - x0, y1 - y0,
      );
      return;
    }
  }

  /** The image of a tile if it is there; else fetch it where it is wanted, or is the coarsest. */
  tile(level, row, column, isWanted) {
    const { micrograph, stamp, n_levels: n } = this.micrograph;
    const address = `/tiles/${micrograph}/${level}/${row}/${column}?v=${stamp}`;
    const known = this.tiles.get(address);
    if (known) {
      this.tiles.delete(address);
      this.tiles.set(address, known);
      return known.complete && known.naturalWidth ? known : null;
    }
    if (!isWanted && level < n - 1) return null;
    const image = new Image();
    image.onload = () => this.redraw();
    image.onerror = () => setTimeout(() => this.tiles.delete(address), 2000);
    image.src = address;
    this.tiles.set(address, image);
    if (this.tiles.size > MOST_TILES) this.tiles.delete(this.tiles.keys().next().value);
    return null;
  }
}
